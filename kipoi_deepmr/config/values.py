"""What may stand in the file as a value: text, numbers, sizes, names, positions; and how a wrong one is described."""

import re
import unicodedata
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictInt, StrictStr

from kipoi_deepmr.errors import ConfigError
from kipoi_deepmr.terms import normalised

_SHOWN = 60
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B", re.IGNORECASE)


class FaultAt(ValueError):
    """A fault that stands elsewhere than at the section that finds it.

    Parameters
    ----------
    location
        Keys that lead to it.
    text
        What is wrong.
    """

    def __init__(self, location: tuple[str, ...], text: str) -> None:
        super().__init__(text)
        self.location = location


def describe(value: object) -> str:
    """Say what stands in the file where something else was expected."""
    if value is None:
        return "nothing"
    if isinstance(value, str):
        return f"the text '{shortened(value)}'" if value else "an empty text"
    named = {dict: "keys", list: "a list", bool: str(value).lower()}
    return named.get(type(value), shortened(f"{value!r}"))


def shortened(text: str) -> str:
    """Return a text that fits into a sentence."""
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def expanded(path: str | Path) -> Path:
    """Return a path with ``~`` expanded.

    Raises
    ------
    ConfigError
        If there is no such user, or it can be no path.
    """
    try:
        if "\0" in str(path):
            raise RuntimeError("it holds a NUL byte")
        return Path(path).expanduser()
    except RuntimeError as error:
        reason = "there is no such user on this machine" if str(path).startswith("~") else str(error)
        raise ConfigError(f"{str(path)!r} is no path here: {reason}") from error


def size_in_bytes(size: str) -> int | None:
    """Return the bytes of a size such as 2GiB; None where it is none."""
    match = _SIZE.fullmatch(size.strip())
    if match is None:
        return None
    return int(float(match[1]) * (1024 if match[3] else 1000) ** " KMGT".index(match[2].upper() or " "))


def _check_size(value: Any) -> str:
    if not isinstance(value, str) or (value != "auto" and not size_in_bytes(value)):
        raise ValueError(f"write a size such as 2GiB or 512MiB, or auto; found {describe(value)}")
    return value


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("the text is empty")
    return value


def _name(value: str) -> str:
    name = normalised(value)
    if not name or any(unicodedata.category(sign) == "Cc" for sign in name):
        raise ValueError(
            f"{shortened(repr(value))} cannot be a name: it is empty, or holds a sign that is not printable"
        )
    return name


def _positions(value: Any) -> Any:
    return value if value == "all" else _window(value, "all, or ")


def _window(value: Any, other: str = "") -> Any:
    whole = isinstance(value, list | tuple) and all(type(end) is int for end in value)
    if not whole or len(value) != 2 or not 0 <= value[0] < value[1]:
        raise ValueError(f"write {other}[start, end) as [20, 40] with 0 <= start < end; found {value!r}")
    return tuple(value)


Text = Annotated[StrictStr, AfterValidator(_not_blank)]
Name = Annotated[StrictStr, AfterValidator(_name)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Positions = Annotated[Literal["all"] | tuple[StrictInt, StrictInt], BeforeValidator(_positions)]
Window = Annotated[tuple[StrictInt, StrictInt], BeforeValidator(_window)]
Size = Annotated[StrictStr, BeforeValidator(_check_size)]


class Section(BaseModel):
    """A section of the file: unknown keys are faults, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)
