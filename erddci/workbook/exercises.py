"""What notebooks need of the package: whether a front end is there, and checks of answers.

The answers to the exercises are in `answers.json`, as salted hashes: enough to check an answer,
but none can be read off.  A number is hashed as the step of a logarithmic scale it falls on,
where neighbours differ by the tolerance of the exercise; the steps on either side count too.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from pathlib import Path

from erddci.registry import lookup

ANSWERS = Path(__file__).with_name("answers.json")

# Set while notebooks run, `check` writes what it is given to the table: after an exercise or the
# model has changed, the solutions of the notebooks bring the table up to date.
RECORD = "ERDDCI_RECORD_ANSWERS"

NO_ANSWER = "no answer yet: replace None, then run this cell and the check again"
RIGHT = "✓ right"
WRONG = "✗ not right: read the hint, or unfold the solution"
UNIT = "✗ the digits are right, the unit is not: a share or per cent?"
SIGN = "✗ the size is right, the sign is not"


def live() -> bool:
    """Whether a front end is there to show interactive views."""
    return "ERDDCI_STATIC" not in os.environ


def check(exercise: str, answer: float | None) -> None:
    """Say whether the answer to an exercise is right, and if not, which slip explains it.

    Args:
        exercise: notebook and number, such as "03-1".
        answer: None for no answer yet.

    Raises:
        ValueError: an unknown exercise, or an answer that is no number.
    """
    if answer is None:
        print(NO_ANSWER)
        return
    number = _number(answer)
    table = json.loads(ANSWERS.read_text())
    if RECORD in os.environ:
        record(exercise, number, table.get(exercise, {}).get("tolerance", 0.01))
        table = json.loads(ANSWERS.read_text())
    known = lookup(table, exercise, "exercise")
    print(_verdict(exercise, number, known))


def record(exercise: str, answer: float, tolerance: float = 0.01) -> None:
    """Write the answer to an exercise to the table, for whoever adds or changes one.

    Args:
        tolerance: relative; 0 for numbers that must be met exactly.
    """
    table = json.loads(ANSWERS.read_text()) if ANSWERS.exists() else {}
    step = _step(answer, tolerance)
    steps = (step,) if tolerance == 0 else (step - 1, step, step + 1)
    hashes = sorted(_hash(exercise, answer, each) for each in steps)
    table[exercise] = {"tolerance": tolerance, "hashes": hashes}
    ANSWERS.write_text(json.dumps(dict(sorted(table.items())), indent=1) + "\n")


def _verdict(exercise: str, answer: float, known: dict) -> str:
    if _is_right(exercise, answer, known):
        return RIGHT
    if _is_right(exercise, -answer, known):
        return SIGN
    if _is_right(exercise, 100 * answer, known) or _is_right(exercise, answer / 100, known):
        return UNIT
    return WRONG


def _is_right(exercise: str, answer: float, known: dict) -> bool:
    return _hash(exercise, answer, _step(answer, known["tolerance"])) in known["hashes"]


def _step(answer: float, tolerance: float) -> float:
    """The step of the logarithmic scale that a number falls on, or itself without tolerance."""
    if tolerance == 0 or answer == 0:
        return answer
    return round(math.log(abs(answer)) / math.log1p(tolerance))


def _hash(exercise: str, answer: float, step: float) -> str:
    sign = (answer > 0) - (answer < 0)
    return hashlib.sha256(f"erddci {exercise} {sign} {step:g}".encode()).hexdigest()[:16]


def _number(answer: object) -> float:
    try:
        number = float(answer)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"expected a finite number as answer, got {answer!r}")
    return number
