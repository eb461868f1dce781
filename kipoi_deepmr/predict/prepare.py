"""Everything of a run that comes before the first mutant: model, tasks, windows, layout, draws, template."""

import hashlib
import importlib.metadata
import json
import logging
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kipoi_deepmr import __version__, terms
from kipoi_deepmr.config import Config
from kipoi_deepmr.cube import Template
from kipoi_deepmr.errors import ConfigError, ModelError
from kipoi_deepmr.model import (
    KipoiModel,
    Selection,
    SequenceNetwork,
    float_dtype,
    load_model,
    select,
    to_batch,
)
from kipoi_deepmr.mutagenesis import Block, FullEngine, choose_engines
from kipoi_deepmr.predict.from_draws import FromDraws
from kipoi_deepmr.predict.members import Member, cautions, digest_of, lent_members
from kipoi_deepmr.predict.sources import find_sources, read_out
from kipoi_deepmr.sequences import Genome, WindowInputs, Windows, select_windows
from kipoi_deepmr.uncertainty import MCDropout

logger = logging.getLogger(__name__)

_EXAMPLES = 4
_PACKAGES = ("kipoi", "kipoiseq", "torch", "numpy", "scipy", "statsmodels", "pandas", "xarray", "zarr")


@dataclass(frozen=True)
class Job:
    """A run that is ready to start: everything is read and checked, nothing is predicted but a few references.

    Attributes
    ----------
    config : Config
        The settings.
    model : KipoiModel
        The Kipoi model.
    selection : Selection
        Its outputs that are exposures and outcomes.
    windows : Windows
        The reference sequences.
    inputs : WindowInputs
        Their inputs, through the model's own dataloader.
    genome : Genome
        The FASTA file.
    members : tuple of Member
        The networks that give draws, on the device and in eval mode: one under MC-dropout, or those of an ensemble.
    positions : range
        Window of positions to mutate.
    device : torch.device
        Where the network is.
    dtype : torch.dtype
        Type of the sequences on the device.
    batch_size : int or None
        Mutants in a batch, as asked for.
    from_draws : FromDraws
        The estimators that need every draw.
    """

    config: Config
    model: KipoiModel
    selection: Selection
    windows: Windows
    inputs: WindowInputs
    genome: Genome
    members: tuple[Member, ...]
    positions: range
    device: torch.device
    dtype: torch.dtype
    batch_size: int | None
    from_draws: FromDraws

    @property
    def network(self) -> SequenceNetwork:
        """The network, or the first of an ensemble."""
        return self.members[0].network

    def dropouts(self) -> list[str]:
        """Return the dropouts that run in the network, or in those of an ensemble."""
        if len(self.members) == 1:
            return [site.describe() for site in self.members[0].sites]
        return [f"{member.name}: {site.describe()}" for member in self.members for site in member.sites]

    @property
    def draws(self) -> int:
        """Draws in all."""
        return len(self.members) * self.config.uncertainty.draws

    def names(self) -> list[str]:
        """Return the names of the sequences, which decide their draws."""
        return [str(name) for name in self.windows.name]

    def codes(self, indices: Sequence[int]) -> NDArray[np.int8]:
        """Return reference bases from the FASTA, shape (sequence, length)."""
        return _codes(self.genome, self.windows, indices)

    def mutants(self) -> NDArray[np.int64]:
        """Return how many mutants each sequence has: three at each known position, none at N; shape (sequence,)."""
        window = slice(self.positions.start, self.positions.stop)
        known = [int((self.codes([index])[0, window] >= 0).sum()) for index in range(len(self.windows))]
        return 3 * np.array(known, dtype=np.int64)

    def block(self, indices: Sequence[int]) -> Block:
        """Load some sequences onto the device.

        Raises
        ------
        ModelError
            If the dataloader gives other bases than the FASTA file holds.
        """
        inputs, codes = self.inputs.load(indices), self.codes(indices)
        names = self.names()
        names = [names[index] for index in indices]
        layout = self.network.layout
        if not layout.matches(inputs, codes):
            raise ModelError(f"the dataloader gives other bases than the FASTA file for some of {', '.join(names)}")
        batch, _ = to_batch(inputs, layout, self.device, self.dtype)
        return Block(names, codes, batch.sequence, batch.others)

    def engine(self, block: Block, *, keep_draws: bool = False) -> FullEngine:
        """Return the engine that the configuration asks for, tried on a block and ready to run."""
        numbers = range(len(self.members))
        options = [{**self.engine_options(number), "keep_draws": keep_draws} for number in numbers]
        return choose_engines(self.config.mutagenesis.engine, block, self.positions, options)

    def engine_options(self, number: int = 0) -> dict[str, Any]:
        """Return the arguments of an engine for one of the members, by default the first."""
        uncertainty, member = self.config.uncertainty, self.members[number]
        draws = MCDropout(
            member.sites,
            seed=uncertainty.seed,
            device=self.device,
            dtype=float_dtype(member.network) or self.dtype,
            shared=uncertainty.shared_draws,
            first=number * uncertainty.draws,
        )
        return {
            "network": member.network,
            "draws": draws,
            "count": uncertainty.draws,
            "columns": list(member.columns),
            "exposures": len(self.selection.exposures),
            "scale": self.config.effects.scale,
            "batch_size": self.batch_size,
            "memory": self.config.mutagenesis.memory_bytes,
            "precision": self.config.mutagenesis.precision,
        }

    def template(self) -> Template:
        """Return coordinates and attributes of the store."""
        windows, selection, config = self.windows, self.selection, self.config
        letters = np.array([*terms.ALLELES, terms.UNKNOWN_BASE], dtype=object)
        window = slice(self.positions.start, self.positions.stop)
        reference = np.stack([letters[self.codes([index])[0, window]] for index in range(len(windows))])
        exposures, outcomes = selection.exposures, selection.outcomes
        coords = {
            terms.EXPOSURE: _text(exposures),
            terms.OUTCOME: _text(outcomes),
            terms.SEQUENCE: _text(self.names()),
            terms.POSITION: np.arange(self.positions.start, self.positions.stop),
            terms.ALLELE: _text(terms.ALLELES),
            "chrom": _text(windows.chrom),
            "start": windows.start,
            "end": windows.end,
            "strand": _text(windows.strand),
            "reference_allele": reference,
            "bound": windows.bound,
            "exposure_task": _text(target.label for target in exposures.values()),
            "exposure_task_index": np.array([target.index for target in exposures.values()]),
            "outcome_task": _text(target.label for target in outcomes.values()),
            "outcome_task_index": np.array([target.index for target in outcomes.values()]),
        }
        if config.effects.keep_draws:
            coords[terms.DRAW] = np.arange(self.draws)
        errors, drawn = config.effects.standard_error, self.from_draws.drawn
        return Template(coords, config.effects.scale, errors, self._attrs(), drawn)

    def _attrs(self) -> dict[str, Any]:
        config = self.config
        return {
            "title": f"Deep Mendelian randomization of {config.model.name} ({config.model.source})",
            "source": f"kipoi_deepmr {__version__}",
            "history": "",
            "config": config.canonical(),
            "config_sha256": config.sha256(),
            "fasta": str(self.genome.path),
            "windows_sha256": _digest(self.codes([index]) for index in range(len(self.windows))),
            "weights_sha256": digest_of(self.members),
            "versions": json.dumps(
                {name: importlib.metadata.version(name) for name in _PACKAGES} | {"python": platform.python_version()}
            ),
            "sequence_seed": config.sequences.seed,
            "draw_seed": config.uncertainty.seed,
            "draws": self.draws,
            "members": [member.name for member in self.members],
            "dropout": self.dropouts(),
            "layout": self.network.layout.describe(),
            "device": describe_device(self.device),
            "scale": config.effects.scale,
            "standard_error": config.effects.standard_error,
            "notes": self.notes(),
        }

    def notes(self) -> list[str]:
        """Return what a user should know of the choice of tasks and sequences."""
        sampled = (line for report in self.windows.report for line in report.warnings)
        return [*self.selection.notes, *sampled, *cautions(self.config, self.model, self.members)]


@contextmanager
def prepare(
    config: Config,
    from_draws: FromDraws,
    *,
    device: str | None = None,
    batch_size: int | None = None,
    num_workers: int = 0,
) -> Iterator[Job]:
    """Read and check everything that a run needs, and lend it the network; at the end the network is given back.

    Parameters
    ----------
    config
        The settings.
    from_draws
        The estimators that need every draw.
    device
        torch device such as ``cpu`` or ``cuda:0``. Default: the first GPU, else the CPU.
    batch_size
        Mutants in a batch. Default: what the memory bound allows.
    num_workers
        Processes of the dataloader.

    Yields
    ------
    Job

    Raises
    ------
    DeepMRError
        If the configuration, the model, the tasks, the sequences or the dropouts are not usable, each with the reason.
    """
    place = find_device(device)
    if config.mutagenesis.precision == "tf32" and place.type != "cuda":
        raise ConfigError(f"mutagenesis.precision: tf32 is arithmetic of NVIDIA GPUs, the device is {place}")
    if batch_size is not None and batch_size < 1:
        raise ConfigError(f"batch size {batch_size}: at least 1 mutant has to be in a batch")
    if num_workers < 0:
        raise ConfigError(f"{num_workers} workers: 0 loads sequences in this process, more start others")
    model = load_model(config.model.name, config.model.source, config.directory)
    selection = select(model.targets(), config)
    sources = find_sources(config, model, selection)
    length = model.length(config.dataloader.args, config.sequences.length)
    positions = _positions(config, length)
    args = model.dataloader_args(config)
    with Genome(Path(args[model.fasta_arg(config)])) as genome:
        windows = _windows(config, model, selection, genome, args, length)
        few = range(min(_EXAMPLES, len(windows)))

        def inputs_of(one: KipoiModel) -> WindowInputs:
            given = args if one is model else one.dataloader_args(config)
            asked = config.dataloader.intervals_arg
            return WindowInputs(one.dataloader, given, windows, intervals_arg=asked, num_workers=num_workers)

        inputs, codes, draws = inputs_of(model), _codes(genome, windows, few), config.uncertainty.draws
        with lent_members(
            sources,
            model,
            lambda one: inputs_of(one).load(few),
            codes,
            place,
            draws=draws,
            wanted=config.dataloader.sequence_input,
        ) as (members, dtype):
            from_draws.check_members(len(members))
            found = model, selection, windows, inputs, genome, members, positions, place, dtype
            yield Job(config, *found, batch_size, from_draws)


def find_device(name: str | None) -> torch.device:
    """Return the device to use.

    Raises
    ------
    ConfigError
        If there is no such device here.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device).cpu()
    except (RuntimeError, AssertionError) as error:
        gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
        raise ConfigError(f"device '{name}' is not there (available: {', '.join(['cpu', *gpus])})") from error
    return device


def describe_device(device: torch.device) -> str:
    """Return the name of the hardware."""
    if device.type == "cuda":
        return f"{device}: {torch.cuda.get_device_name(device)}"
    return f"{device}: {platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


def _windows(
    config: Config,
    model: KipoiModel,
    selection: Selection,
    genome: Genome,
    args: Mapping[str, Any],
    length: int,
) -> Windows:
    section = config.sequences
    peaks = selection.peaks or dict.fromkeys(selection.exposures, str(section.intervals))
    outputs, columns = read_out(model, selection.indices, selection)

    def predict(candidates: Windows) -> NDArray[np.float64]:
        loader = WindowInputs(model.dataloader, args, candidates, intervals_arg=config.dataloader.intervals_arg)
        return model.predict(loader.load(range(len(candidates))), outputs)[:, columns[: len(selection.exposures)]].T

    return select_windows(
        {name: config.resolve(path) for name, path in peaks.items()},
        genome,
        length=length,
        per_exposure=section.per_exposure,
        chromosomes=section.chromosomes,
        seed=section.seed,
        max_n_fraction=section.max_n_fraction,
        merge_distance=section.merge_distance,
        use_strand=bool(model.argument(args, "use_strand", False)),
        predict=predict if section.min_prediction is not None else None,
        min_prediction=section.min_prediction,
    )


def _positions(config: Config, length: int) -> range:
    asked = config.mutagenesis.positions
    if asked == "all":
        return range(length)
    if asked[1] > length:
        raise ConfigError(f"mutagenesis.positions: {list(asked)} leaves the window, which has {length} positions")
    return range(*asked)


def _codes(genome: Genome, windows: Windows, indices: Sequence[int]) -> NDArray[np.int8]:
    where = (windows.chrom, windows.start, windows.end, windows.strand)
    return np.stack(
        [
            genome.codes(str(c), int(s), int(e), str(d))
            for c, s, e, d in zip(*(a[list(indices)] for a in where), strict=True)
        ]
    )


def _digest(arrays: Iterable[NDArray[np.int8]]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(array.tobytes())
    return digest.hexdigest()


def _text(words: Any) -> NDArray[Any]:
    return np.array([str(word) for word in words], dtype=object)
