"""All variants as VCF 4.3."""

from collections.abc import Iterator, Mapping

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from kipoi_deepmr import terms
from kipoi_deepmr.coordinates import GenomeVariants
from kipoi_deepmr.cube import EFFECTS_GROUP
from kipoi_deepmr.reading import read
from kipoi_deepmr.sequences.genome import Genome
from kipoi_deepmr.tracks.names import vcf_keys
from kipoi_deepmr.tracks.overlaps import check_windows, genome_order, read_variants

_RESERVED = str.maketrans({sign: f"%{ord(sign):02X}" for sign in "%;=,\t\r\n "})


def vcf_lines(
    results: xr.DataTree, genome: Genome, spelled: Mapping[tuple[str, str], str] | None = None
) -> Iterator[str]:
    """Yield all mutations of the completed sequences as the lines of a VCF 4.3 file.

    One record per mutation and sequence: where two sequences overlap, the same mutation stands in both, with its own
    effects, told apart by INFO/SEQ; a model reads a base in its context. REF and ALT stand on the plus strand. Each
    task has its EFFECT and SE in INFO (``EFFECT_FOXA1``, ``SE_FOXA1``: characters that VCF does not allow in a key
    become ``_``); the header says which task and column of the model, on which scale, and what the errors are. Effects
    are written to float32's precision.

    Parameters
    ----------
    results
        An open store.
    genome
        The FASTA file of the run.
    spelled
        Keys of tasks, as `vcf_keys` spells those of the store of which `results` is a part. Default: `results` is whole.

    Yields
    ------
    str
        Header and records, sorted by the FASTA file's contigs, position and mutant.

    Raises
    ------
    SequenceError
        Before the first line, if the reference of a sequence is not that of the FASTA file.
    StoreError
        If the store is damaged.

    References
    ----------
    The Variant Call Format Specification, VCFv4.3 (2024), samtools.github.io/hts-specs.
    """
    effects = results[EFFECTS_GROUP].to_dataset()
    check_windows(effects, genome)
    named = vcf_keys(effects) if spelled is None else spelled
    keys = {
        named[side, str(name)]: (side, index)
        for side in terms.GLOBAL_DIMS
        for index, name in enumerate(effects[side].values.tolist())
    }
    yield from _header(results, effects, genome, keys)
    pending: list[tuple[int, str, str, str]] = []
    contig = ""
    for sequences, variants in read_variants(effects, genome_order(effects, list(genome.sizes))):
        columns = _columns(effects, keys, sequences)
        for row, chrom in enumerate(variants.chrom.tolist()):
            # A later sequence begins here at the earliest, so what lies before it is in order.
            first = int(variants.coordinate[row].min()) if chrom == contig else None
            yield from _settled(pending, first)
            contig = chrom
            pending += _records(variants, row, {key: values[row] for key, values in columns.items()})
    yield from _settled(pending, None)


def _settled(pending: list[tuple[int, str, str, str]], first: int | None) -> Iterator[str]:
    """Yield and forget the records before a coordinate, or all."""
    pending.sort()
    ready = [record for record in pending if first is None or record[0] < first]
    del pending[: len(ready)]
    yield from (record[-1] for record in ready)


def _header(
    results: xr.DataTree, effects: xr.Dataset, genome: Genome, keys: Mapping[str, tuple[str, int]]
) -> Iterator[str]:
    attrs = results.attrs
    yield "##fileformat=VCFv4.3\n"
    yield f"##source={attrs.get('source', 'kipoi_deepmr')}\n"
    yield f"##reference={genome.path.resolve().as_uri()}\n"
    for name in ("title", "scale", "standard_error", "config_sha256", "weights_sha256"):
        if name in attrs:
            yield f"##deepmr_{name}={attrs[name]}\n"
    for contig, length in genome.sizes.items():
        yield f"##contig=<ID={contig},length={length}>\n"
    yield _info("SEQ", "1", "String", "sequence that was mutated, contig:start-end(strand), 0-based half-open")
    yield _info("POSITION", "1", "Integer", "position in the sequence as the model reads it, from 0")
    for key, (side, index) in keys.items():
        name, label, column = (effects[what].values[index] for what in (side, f"{side}_task", f"{side}_task_index"))
        task = f"{side} {name} (output {column} of the model, {label})"
        yield _info(f"EFFECT_{key}", "A", "Float", f"mutant minus reference, {attrs['scale']} scale, {task}")
        yield _info(f"SE_{key}", "A", "Float", f"{attrs['standard_error']} standard error of the effect, {task}")
    yield "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"


def _info(key: str, number: str, kind: str, text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'##INFO=<ID={key},Number={number},Type={kind},Description="{escaped}">\n'


def _columns(
    effects: xr.Dataset, keys: Mapping[str, tuple[str, int]], sequences: NDArray[np.intp]
) -> dict[str, NDArray[np.float32]]:
    """Read the effects and errors of all tasks, shape (sequence, position, allele) each."""
    return {
        f"{word}_{key}": read(effects, f"{side}_{name}", **{side: index, terms.SEQUENCE: sequences})
        for key, (side, index) in keys.items()
        for word, name in (("EFFECT", "effect"), ("SE", "se"))
    }


def _records(
    variants: GenomeVariants, row: int, columns: Mapping[str, NDArray[np.float32]]
) -> list[tuple[int, str, str, str]]:
    """Return the mutations of a sequence: coordinate, mutant, sequence, line."""
    known = np.logical_or.reduce([np.isfinite(values) for values in columns.values()])
    position, allele = np.nonzero(known)
    sequence = variants.sequence[row].translate(_RESERVED)
    numbers = [
        [f"{key}={'.' if text == 'nan' else text}" for text in values[known].astype(str).tolist()]
        for key, values in columns.items()
    ]
    rows = zip(
        variants.coordinate[row, position].tolist(),
        variants.position[position].tolist(),
        variants.reference[row, position].tolist(),
        variants.mutant[row, allele].tolist(),
        zip(*numbers, strict=True),
        strict=True,
    )
    chrom = variants.chrom[row]
    return [
        (
            at,
            mutant,
            sequence,
            f"{chrom}\t{at + 1}\t.\t{reference}\t{mutant}\t.\t.\tSEQ={sequence};POSITION={place};{';'.join(texts)}\n",
        )
        for at, place, reference, mutant, texts in rows
    ]
