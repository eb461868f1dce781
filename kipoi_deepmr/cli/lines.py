"""Lines that fit a terminal of 100 columns."""

import textwrap

WIDTH = 100


def in_lines(label: str, text: str, indent: int) -> str:
    """Return a label and a text of any length, whose further lines begin in its column.

    Parameters
    ----------
    label
        What stands before the text, padded to `indent` columns.
    text
        The text; it is wrapped, never cut.
    indent
        Column of the text.
    """
    lines = textwrap.wrap(
        text,
        WIDTH,
        initial_indent=label.ljust(indent),
        subsequent_indent=" " * indent,
        break_on_hyphens=False,
        drop_whitespace=True,
    )
    return "\n".join(lines) or label
