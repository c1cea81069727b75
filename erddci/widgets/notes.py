"""Warnings as text, for widgets to show."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from erddci.images import ImageChanged
from erddci.notices import NoEffect

# What collects the warnings of a thread, if anything does; each thread has a context of its own.
_collected: ContextVar[list[str] | None] = ContextVar("collected", default=None)
_show_warning = warnings.showwarning


@contextmanager
def collected_warnings() -> Iterator[list[str]]:
    """Collect what this thread is warned of while the block runs, instead of showing it.

    `warnings.catch_warnings` would do so for all threads, and a cell that uses it meanwhile could
    end up with this block's settings for good.
    """
    for category in (ImageChanged, NoEffect):
        # Each time, not once for each line of code; what somebody chose to ignore stays ignored.
        warnings.simplefilter("always", category, append=True)
    warnings.showwarning = _collect_or_show
    collected: list[str] = []
    token = _collected.set(collected)
    try:
        yield collected
    finally:
        _collected.reset(token)


def _collect_or_show(message: Warning | str, *others: Any, **more: Any) -> None:  # noqa: ANN401
    collected = _collected.get()
    if collected is None:
        _show_warning(message, *others, **more)
    else:
        collected.append(str(message))
