"""What notebooks ask of the package: whether a reader is there, and whether an answer is right."""

from __future__ import annotations

import os


def live() -> bool:
    """Whether a front end is there to show interactive views."""
    return "ERDDCI_STATIC" not in os.environ


def check(answer: float | None, expected: float, tolerance: float = 1e-2) -> None:
    """Tell a reader whether the answer to an exercise is right, up to a relative tolerance."""
    if answer is None:
        print("no answer yet: replace None, then run this cell and the check again")
    elif abs(answer - expected) <= tolerance * max(abs(expected), 1e-12):
        print(f"✓ {answer:.4g} is right")
    else:
        print(f"✗ {answer:.4g} is not it: read the hint, or unfold the solution")
