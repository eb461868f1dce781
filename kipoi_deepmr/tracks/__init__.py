"""Genome tracks: effects and variants at their coordinates on the plus strand."""

from kipoi_deepmr.tracks.base_signal import SUMMARIES, SUMMARY_MEANINGS, bedgraph_lines, signal, summarized
from kipoi_deepmr.tracks.bed import bed_lines
from kipoi_deepmr.tracks.overlaps import Overlaps, Stretch, check_windows, genome_order
from kipoi_deepmr.tracks.vcf import vcf_lines

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
