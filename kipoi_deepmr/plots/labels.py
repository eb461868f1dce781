"""Names of tasks, cut such that they stay apart, and the labels of axes."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from kipoi_deepmr import terms
from kipoi_deepmr.plots.canvas import text_width
from kipoi_deepmr.plots.choice import names
from kipoi_deepmr.tables.terminal import cut

_LONG_LABELS = 90
_ONE_LINE = 26
_SHORT_NAME = 14
_WIDER = 4
_SCALES = {"identity": "model output", "logit": "log odds", "log": "log"}


def apart(texts: Sequence[str], width: int) -> list[str]:
    """Cut names to a width such that different ones stay different.

    Parameters
    ----------
    texts
        Names that are read side by side.
    width
        Most characters. Names that would look alike are cut around that in which they differ, and where that does not
        tell them apart they are longer.
    """
    labels = {name: cut(name, width) for name in texts}
    while alike := _alike(labels):
        for group in alike:
            labels |= zip(group, _around_differences(group, width), strict=True)
        width += _WIDER
    return [labels[name] for name in texts]


def short(results: xr.DataTree, name: str, width: int) -> str:
    """Return the name of a task of a store, cut such that no other task of the store looks like it."""
    known = list(dict.fromkeys(name for dim in terms.GLOBAL_DIMS for name in names(results, dim)))
    return apart(known, width)[known.index(name)]


def fall_label(results: xr.DataTree, task: str) -> str:
    """Return the label of an axis of minus the mean effect of the mutations of a position."""
    return f"fall of {short(results, task, 16)}\nwhen mutated\n({_SCALES[str(results.attrs['scale'])]})"


def genome_axis(ax: Axes, chrom: str, strand: str) -> None:
    """Label a horizontal axis of positions on a contig, counted from 1."""
    ax.xaxis.set_major_locator(MaxNLocator(3, integer=True))
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    ax.tick_params(axis="x", labelsize="small")
    reads = ", window read on the − strand" if strand == "-" else ""  # noqa: RUF001
    ax.set_xlabel(f"position on {cut(chrom, 16)}{reads}")


def ratio_label(results: xr.DataTree, exposure: str, outcome: str, labels: Iterable[str] = ()) -> str:
    """Return the label of an axis of causal effects, in short lines where long labels of rows make the axis short."""
    narrow = text_width(labels, "medium") > _LONG_LABELS
    width = 16 if narrow else 22
    on = f"on {short(results, outcome, width)}"
    of = f"effect of {short(results, exposure, width)}\n{on}" if exposure else f"effect {on}"
    unit = f"(outcome per exposure,\n{results.attrs['scale']} scale)"
    if not narrow:
        unit = unit.replace("\n", " ")
        of = of if len(exposure) + len(outcome) > _ONE_LINE else of.replace("\n", " ")
    return f"{of}\n{unit}"


def effect_label(results: xr.DataTree, task: str, of: str = "effect") -> str:
    """Return the label of an axis of effects of mutations, or of their size."""
    gap = " " if len(task) <= _SHORT_NAME else "\n"
    return f"{of} on {short(results, task, 22)}{gap}({_SCALES[str(results.attrs['scale'])]})"


def _alike(labels: Mapping[str, str]) -> list[list[str]]:
    """Return the groups of names with the same label."""
    groups = defaultdict(list)
    for name, label in labels.items():
        groups[label].append(name)
    return [group for group in groups.values() if len(group) > 1]


def _around_differences(group: Sequence[str], width: int) -> list[str]:
    """Cut names within the beginning and the end that they share."""
    start = _shared(group)
    rests = [name[start:] for name in group]
    end = _shared([rest[::-1] for rest in rests])
    return [_around(name, start, len(name) - end, width) for name in group]


def _shared(texts: Sequence[str]) -> int:
    """Return how many characters some texts begin with in common."""
    places = enumerate(zip(*texts, strict=False))
    return next((place for place, letters in places if len(set(letters)) > 1), min(map(len, texts)))


def _around(name: str, start: int, end: int, width: int) -> str:
    """Cut a name to a width, before and behind the part from `start` to `end` rather than in it."""
    room = max(0, width - (end - start) - 2 * len(".."))
    before, behind = name[:start], name[end:]
    kept = max(room // 2, room - len(behind) - len(".."))
    head = before if len(before) <= kept + len("..") else f"{before[:kept]}.."
    left = width - len(head) - (end - start)
    tail = behind if len(behind) <= left else f"..{behind[len(behind) - max(0, left - 2) :]}"
    return cut(f"{head}{name[start:end]}{tail}", width)
