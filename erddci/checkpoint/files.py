"""Reading JSON files, and the sentence that refuses what they say."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, TypeGuard


def refuse(path: Path, expected: str, got: object, remedy: str) -> ValueError:
    """The error of a file that says what cannot be used: expected, got, and what to do."""
    return ValueError(f"{path}: expected {expected}, got {got}; {remedy}")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        ValueError: it is damaged, or holds anything else.
    """
    remedy = "fetch the file again"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise refuse(path, "JSON", f"a damaged file ({error})", remedy) from error
    except OSError as error:
        raise refuse(path, "a file", error.strerror or error, "check its permissions") from error
    if not isinstance(found, dict):
        raise refuse(path, "a JSON object", f"a {type(found).__name__}", remedy)
    return found


def is_count(value: object) -> TypeGuard[int]:
    """Whether a value is a whole number from 1 on; JSON's `true` is none."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
