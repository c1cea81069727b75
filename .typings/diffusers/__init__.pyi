# diffusers annotates itself, but wrongly in many places: to the type checker it is untyped.
from typing import Any

def __getattr__(name: str) -> Any: ...
