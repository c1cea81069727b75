# pandas types a column as several things at once: to the type checker it is untyped.
from typing import Any

def __getattr__(name: str) -> Any: ...
