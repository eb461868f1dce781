"""Everything of a run that comes before the first mutant: model, tasks, windows, layout, draws, template."""

import importlib.metadata
import json
import logging
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
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
    load_model,
    select,
    to_batch,
)
from kipoi_deepmr.mutagenesis import Block
from kipoi_deepmr.predict.from_draws import NO_ESTIMATORS, FromDraws
from kipoi_deepmr.predict.lending import LentMember, cautions, digest_of, lent_members
from kipoi_deepmr.predict.members import find_members, read_out
from kipoi_deepmr.sequences import Genome, Sequences, WindowInputs, Windows, sample_sequences

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
    sequences : Sequences
        The reference sequences; those of the configuration, some of them, or shuffled copies.
    inputs : WindowInputs
        The inputs of their windows, through the model's own dataloader.
    fasta : Path
        The FASTA file that they were read from.
    members : tuple of LentMember
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
        The estimators that need every draw. Default: none.
    """

    config: Config
    model: KipoiModel
    selection: Selection
    sequences: Sequences
    inputs: WindowInputs
    fasta: Path
    members: tuple[LentMember, ...]
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

    def of(self, sequences: Sequences) -> "Job":
        """Return the same job for some of its sequences, or for shuffled copies of them."""
        return replace(self, sequences=sequences, inputs=self.inputs.of(sequences.windows))

    def mutants(self) -> NDArray[np.int64]:
        """Return how many mutants each sequence has, shape (sequence,)."""
        return self.sequences.mutants(self.positions)

    def block(self, indices: Sequence[int]) -> Block:
        """Load some sequences onto the device.

        Raises
        ------
        ModelError
            If the dataloader gives other bases than the FASTA file holds.
        """
        some, inputs, layout = self.sequences.take(indices), self.inputs.load(indices), self.network.layout
        if not layout.matches(inputs, some.bases_of_windows):
            names = ", ".join(some.windows.names())
            raise ModelError(f"the dataloader gives other bases than the FASTA file for some of {names}")
        batch, _ = to_batch(inputs, layout, self.device, self.dtype)
        sequence = batch.sequence
        if some.order is not None:
            sequence = _reordered(sequence, some.order, layout.position_axis + 1)
        return Block(some.names, some.bases, sequence, batch.others)

    def template(self) -> Template:
        """Return coordinates and attributes of the store."""
        sequences, selection, config = self.sequences, self.selection, self.config
        letters = np.array([*terms.ALLELES, terms.UNKNOWN_BASE], dtype=object)
        windows, mutated = sequences.windows, slice(self.positions.start, self.positions.stop)
        exposures, outcomes = selection.exposures, selection.outcomes
        coords = {
            terms.EXPOSURE: _text(exposures),
            terms.OUTCOME: _text(outcomes),
            terms.SEQUENCE: _text(sequences.names),
            terms.POSITION: np.arange(self.positions.start, self.positions.stop),
            terms.ALLELE: _text(terms.ALLELES),
            "chrom": _text(windows.chrom),
            "start": windows.start,
            "end": windows.end,
            "strand": _text(windows.strand),
            "reference_allele": letters[sequences.bases[:, mutated]],
            "bound": sequences.bound,
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
            "fasta": str(self.fasta),
            "windows_sha256": self.sequences.digest,
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
        sampled = (line for report in self.sequences.report for line in report.warnings)
        return [*self.selection.notes, *sampled, *cautions(self.config, self.model, self.members)]


@contextmanager
def prepare(
    config: Config,
    from_draws: FromDraws = NO_ESTIMATORS,
    *,
    device: str | None = None,
    batch_size: int | None = None,
    num_workers: int = 0,
    sequences: Sequences | None = None,
) -> Iterator[Job]:
    """Read and check everything that a run needs, and lend it the network; at the end the network is given back.

    Parameters
    ----------
    config
        The settings.
    from_draws
        The estimators that need every draw. Default: none.
    device
        torch device such as ``cpu`` or ``cuda:0``. Default: the first GPU, else the CPU.
    batch_size
        Mutants in a batch. Default: what the memory bound allows.
    num_workers
        Processes of the dataloader.
    sequences
        Sequences of this configuration, or some of them. Default: they are sampled and read.

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
    found = find_members(config, model, selection)
    length = model.length(config.dataloader.args, config.sequences.length)
    positions = _positions(config, length)
    args = model.dataloader_args(config)
    fasta = Path(args[model.fasta_arg(config)]).expanduser()
    if sequences is None:
        with Genome(fasta) as genome:
            sequences = _sampled(config, model, selection, genome, args, length)
    windows, few = sequences.windows, range(min(_EXAMPLES, len(sequences)))

    def inputs_of(one: KipoiModel) -> WindowInputs:
        given = args if one is model else one.dataloader_args(config)
        asked = config.dataloader.intervals_arg
        return WindowInputs(one.dataloader, given, windows, intervals_arg=asked, num_workers=num_workers)

    inputs, draws = inputs_of(model), config.uncertainty.draws
    with lent_members(
        found,
        model,
        lambda one: inputs_of(one).load(few),
        sequences.take(few).bases_of_windows,
        place,
        draws=draws,
        wanted=config.dataloader.sequence_input,
    ) as (members, dtype):
        from_draws.check_members(len(members))
        read = model, selection, sequences, inputs, fasta, members, positions, place, dtype
        yield Job(config, *read, batch_size, from_draws)


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


def _sampled(
    config: Config,
    model: KipoiModel,
    selection: Selection,
    genome: Genome,
    args: Mapping[str, Any],
    length: int,
) -> Sequences:
    section = config.sequences
    peaks = selection.peaks or dict.fromkeys(selection.exposures, str(section.intervals))
    outputs, columns = read_out(model, selection.indices, selection)

    def predict(candidates: Windows) -> NDArray[np.float64]:
        loader = WindowInputs(model.dataloader, args, candidates, intervals_arg=config.dataloader.intervals_arg)
        return model.predict(loader.load(range(len(candidates))), outputs)[:, columns[: len(selection.exposures)]].T

    return sample_sequences(
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


def _reordered(sequence: torch.Tensor, order: NDArray[np.unsignedinteger], axis: int) -> torch.Tensor:
    """Take the positions of each row, which stand on one of the axes, in another order, shape (row, position)."""
    shape = [len(order), *(1,) * (sequence.ndim - 1)]
    shape[axis] = -1
    index = torch.from_numpy(order.astype(np.int64)).to(sequence.device).view(shape)
    return sequence.gather(axis, index.expand_as(sequence))


def _text(words: Any) -> NDArray[Any]:
    return np.array([str(word) for word in words], dtype=object)
