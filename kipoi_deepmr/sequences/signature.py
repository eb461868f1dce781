"""The arguments of a Kipoi dataloader: which it takes and needs, and which takes the intervals."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kipoi_deepmr.errors import SequenceError, suggestion

_INTERVAL_WORDS = ("interval", "bed", "region")


class Signature:
    """The arguments of a dataloader class, also where Kipoi made it from a function.

    Parameters
    ----------
    dataloader
        The class.

    Attributes
    ----------
    title : str
        What to call it.
    names : list of str
        Its arguments.
    any_name : bool
        Whether it takes further ones.
    """

    def __init__(self, dataloader: Any) -> None:
        function = getattr(dataloader, "generator_fn", None) or getattr(dataloader, "data_fn", None) or dataloader
        parameters = inspect.signature(function).parameters.values()
        variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        self.title: str = getattr(function, "__name__", str(function)).removeprefix("Overridden")
        self._parameters = {one.name: one for one in parameters if one.kind not in variable}
        self.any_name = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters)
        self.names = list(dict.fromkeys([*self._parameters, *(getattr(dataloader, "args", None) or ())]))

    def default(self, name: str) -> Any:
        """Return the default of an argument, None where it has none."""
        default = getattr(self._parameters.get(name), "default", None)
        return None if default is inspect.Parameter.empty else default

    def is_required(self, name: str) -> bool:
        """Tell whether an argument has no default."""
        return getattr(self._parameters.get(name), "default", None) is inspect.Parameter.empty

    def intervals_arg(self, asked: str | None) -> str:
        """Return the argument that takes the intervals.

        Raises
        ------
        SequenceError
            If there is none that is called so, or it is unclear.
        """
        if asked is not None:
            if asked in self.names or self.any_name:
                return asked
            raise SequenceError(
                f"dataloader.intervals_arg is {asked!r}, but the dataloader {self.title} has no such argument."
                f"{suggestion(asked, self.names)} It takes {', '.join(self.names)}."
            )
        if "intervals_file" in self.names:
            return "intervals_file"
        alike = [name for name in self.names if any(word in _plain(name) for word in _INTERVAL_WORDS)]
        for choice in (alike, [name for name in alike if self.is_required(name)]):
            if len(choice) == 1:
                return choice[0]
        raise SequenceError(
            f"It is unclear which argument of the dataloader {self.title} takes the intervals: it takes"
            f" {', '.join(self.names) or 'none by name'}. Name it in dataloader.intervals_arg."
        )

    def check(self, args: Mapping[str, object], intervals_arg: str) -> None:
        """Check that arguments are those of the dataloader.

        Raises
        ------
        SequenceError
            If one is unknown, missing, the intervals, or a FASTA file that does not exist.
        """
        if intervals_arg in args:
            raise SequenceError(
                f"dataloader.args sets {intervals_arg!r}, the intervals of the dataloader {self.title}. Remove it: the"
                " windows come from `sequences`."
            )
        unknown = [] if self.any_name else [name for name in args if name not in self.names]
        if unknown:
            raise SequenceError(
                f"The dataloader {self.title} has no argument {unknown[0]!r}.{suggestion(unknown[0], self.names)}"
                f" It takes {', '.join(self.names)}."
            )
        missing = [name for name in self.names if self.is_required(name) and name not in args and name != intervals_arg]
        if missing:
            raise SequenceError(
                f"The dataloader {self.title} needs the argument(s) {', '.join(missing)}. Set them in dataloader.args."
            )
        for name, value in args.items():
            if "fasta" in name and isinstance(value, str) and not Path(value).exists():
                raise SequenceError(
                    f"dataloader.args gives {name} = {value!r}, which does not exist. Give the path of the genome as"
                    " FASTA."
                )


def _plain(name: str) -> str:
    return name.casefold().replace("embed", "")
