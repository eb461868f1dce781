"""Genome tracks: effects and variants at their coordinates on the plus strand."""

from kipoi_deepmr.tracks.bed import bed_lines
from kipoi_deepmr.tracks.signal import SUMMARIES, SUMMARY_MEANINGS, bedgraph_lines, signal, summarized
from kipoi_deepmr.tracks.vcf import vcf_lines
from kipoi_deepmr.tracks.windows import Overlaps, Stretch, check_windows, genome_order

__all__ = [
    "SUMMARIES",
    "SUMMARY_MEANINGS",
    "Overlaps",
    "Stretch",
    "bed_lines",
    "bedgraph_lines",
    "check_windows",
    "genome_order",
    "signal",
    "summarized",
    "vcf_lines",
]
