"""Names that a user gives, and what they stand for: one message for all that is unknown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

T = TypeVar("T")


def lookup(table: Mapping[Any, T], name: str, what: str) -> T:
    """Return what a table holds under a name.

    `what` says what the names of the table are names of, such as "method".

    Raises:
        ValueError: a name that the table does not hold; see `unknown`.
    """
    if name not in table:
        raise unknown(name, table, what)
    return table[name]


def unknown(name: str, known: Iterable[str], what: str) -> ValueError:
    """The error of a name that is not known: it lists the known ones, and names the closest."""
    known = list(known)
    message = f"unknown {what} {name!r}: expected one of {', '.join(known)}"
    close = get_close_matches(str(name), known, n=1)
    return ValueError(f"{message}; did you mean {close[0]!r}?" if close else message)
