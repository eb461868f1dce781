"""Names of tasks as files and keys of other formats may spell them."""

import re
from collections.abc import Iterable

import xarray as xr

from kipoi_deepmr import terms
from kipoi_deepmr.reading import read

_FORBIDDEN_IN_KEYS = r"[^0-9A-Za-z_.]"


def distinct(names: Iterable[str], forbidden: str) -> list[str]:
    """Return a spelling of each name: what is forbidden becomes ``_``, and no two are the same.

    Parameters
    ----------
    names
        All names of a store that may stand side by side, so that a spelling does not depend on which are chosen.
    forbidden
        Regular expression of a character that the format does not allow.
    """
    found: list[str] = []
    taken: set[str] = set()
    for name in names:
        word = plain = re.sub(forbidden, "_", name, flags=re.ASCII)
        number = 2
        # Some file systems do not tell capitals from small letters.
        while word.casefold() in taken:
            word, number = f"{plain}_{number}", number + 1
        taken.add(word.casefold())
        found.append(word)
    return found


def vcf_keys(effects: xr.Dataset) -> dict[tuple[str, str], str]:
    """Return the key in a VCF file of each side and task of a store.

    Parameters
    ----------
    effects
        The group `/effects` of the whole store.

    Raises
    ------
    StoreError
        If the store is damaged.
    """
    tasks = [(side, str(name)) for side in terms.GLOBAL_DIMS for name in read(effects, side).tolist()]
    return dict(zip(tasks, distinct((name for _, name in tasks), _FORBIDDEN_IN_KEYS), strict=True))
