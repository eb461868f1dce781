"""A store over a small genome, made without a model: windows on both strands that overlap."""

from pathlib import Path

import numpy as np

from kipoi_deepmr.config import parse_config
from kipoi_deepmr.cube import Cube, Template
from kipoi_deepmr.effects import Effects
from kipoi_deepmr.estimate.estimate import estimate_store

COMPLEMENT = str.maketrans("ACGTN", "TGCAN")
LENGTH = 12
EXPOSURES = ("TF#1", "TF 1", "CTCF")
OUTCOMES = ("open",)
# The FASTA file's order of contigs is neither that of their names nor that of the windows.
SIZES = {"chr2": 60, "chr10": 50, "chr1": 80}
WINDOWS = (
    ("chr1", 0, "+"),
    ("chr1", 4, "-"),
    ("chr1", 4, "+"),
    ("chr1", 60, "-"),
    ("chr1", 68, "+"),
    ("chr2", 40, "-"),
    ("chr10", 20, "+"),
    ("chr10", 35, "-"),
)
UNKNOWN = ("chr10", 24)


def write_fasta(path: Path) -> dict[str, str]:
    """Write the genome, in lines and partly in small letters, and return its contigs in capitals."""
    random = np.random.default_rng(3)
    contigs = {name: "".join(random.choice(list("ACGT"), size)) for name, size in SIZES.items()}
    name, at = UNKNOWN
    contigs[name] = contigs[name][:at] + "N" + contigs[name][at + 1 :]
    with path.open("w") as file:
        for name, bases in contigs.items():
            shown = bases[:20].lower() + bases[20:]
            file.write(f">{name} a contig\n" + "".join(f"{shown[i : i + 17]}\n" for i in range(0, len(shown), 17)))
    return contigs


def as_read(contigs: dict[str, str], chrom: str, start: int, strand: str) -> str:
    """Return the bases of a window as the model reads them."""
    bases = contigs[chrom][start : start + LENGTH]
    return bases if strand == "+" else bases.translate(COMPLEMENT)[::-1]


def text(words):
    return np.array([str(word) for word in words], dtype=object)


def write_store(
    folder: Path, positions: tuple[int, int] = (0, LENGTH), completed: int = len(WINDOWS), bidirectional: bool = False
) -> Path:
    """Write genome.fa and out.zarr with random effects, estimates included; return the store."""
    contigs = write_fasta(folder / "genome.fa")
    random = np.random.default_rng(5)
    chosen = np.arange(*positions)
    reads = [as_read(contigs, *window) for window in WINDOWS]
    reference = np.array([[read[at] for at in chosen] for read in reads], dtype=object)
    bound = np.ones((len(EXPOSURES), len(WINDOWS)), bool)
    bound[0, 2] = bound[1, :4] = False
    tasks = {"exposure": EXPOSURES, "outcome": OUTCOMES}
    coords = {
        **{side: text(names) for side, names in tasks.items()},
        "sequence": text(f"{chrom}:{start}-{start + LENGTH}({strand})" for chrom, start, strand in WINDOWS),
        "position": chosen,
        "allele": text("ACGT"),
        "chrom": text(chrom for chrom, _, _ in WINDOWS),
        "start": np.array([start for _, start, _ in WINDOWS]),
        "end": np.array([start + LENGTH for _, start, _ in WINDOWS]),
        "strand": text(strand for _, _, strand in WINDOWS),
        "reference_allele": reference,
        "bound": bound,
        **{f"{side}_task": text(f'label "{name}"' for name in names) for side, names in tasks.items()},
        **{f"{side}_task_index": np.arange(len(names)) for side, names in tasks.items()},
    }
    settings = {
        "model": {"name": "none", "source": "dir"},
        "exposures": {name: {"task": name, "peaks": "none.bed"} for name in EXPOSURES},
        "outcomes": {name: {"task": name} for name in OUTCOMES},
        "mr": {"methods": ["egger", "ivw"], "min_f": 0.5, "bidirectional": bidirectional},
    }
    config = parse_config(settings, folder)
    attrs = {
        "config": config.canonical(),
        "config_sha256": config.sha256(),
        "draws": 30,
        "fasta": str(folder / "genome.fa"),
        "history": "",
        "scale": "identity",
        "source": "kipoi_deepmr",
        "standard_error": "posterior",
        "title": "a store for tests",
    }
    cube = Cube.create(folder / "out.zarr", Template(coords, "identity", "posterior", attrs))
    there = (reference[:completed, :, None] != np.array(list("ACGT"))) & (reference[:completed, :, None] != "N")
    shape = there.shape

    def values(*tasks: int, positive: bool = False) -> np.ndarray:
        drawn = random.uniform(0.01, 0.3, (*tasks, *shape)) if positive else random.normal(0, 1, (*tasks, *shape))
        return np.where(there, drawn, np.nan)

    exposures, outcomes = len(EXPOSURES), len(OUTCOMES)
    exposure_se = values(exposures, positive=True)
    exposure_se[0, 0, -1] = np.where(there[0, -1], 0, np.nan)  # all draws agree
    effects = Effects(
        values(exposures), exposure_se, values(outcomes), values(outcomes, positive=True), values(exposures, outcomes)
    )
    references = random.normal(size=(exposures + outcomes, completed))
    cube.write(0, effects, references, np.abs(references))
    estimate_store(folder / "out.zarr", config)
    return folder / "out.zarr"
