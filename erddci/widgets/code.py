"""An edit as lines of Python, to copy from the studio."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from typing import Any

import torch

from erddci.model import StableDiffusion
from erddci.widgets.session import StudioSettings


def as_code(model: StableDiffusion, settings: StudioSettings) -> str:
    """The lines of Python that make the same edit."""
    name = model.name.rsplit("@", 1)[0]
    imports = ["import erddci"]
    arguments = []
    if name != "scenes":
        arguments.append(_quoted(name))
    if model.dtype != torch.float32:
        imports.insert(0, "import torch")
        arguments.append(f"dtype={model.dtype}")
    lines = [
        *imports,
        "",
        f"model = erddci.load({', '.join(arguments)})",
        f"source = {_quoted(settings.source)}",
        f"target = {_quoted(settings.target)}",
        f"config = {_call(settings.config)}",
        "",
        f"x = model.encode({settings.image.code})",
        "path = config.invert(model, x, [source])",
        "edited = config.edit(model, path, [source], [target])",
        "image = model.decode(edited.x0)[0]",
    ]
    return "\n".join(lines)


def _call(record: Any) -> str:  # noqa: ANN401 (any dataclass that erddci exports)
    """The call that makes a dataclass again, with the fields that differ from its defaults."""
    changed = [
        f"{field.name}={_literal(getattr(record, field.name))}"
        for field in fields(record)
        if getattr(record, field.name) != field.default
    ]
    name = f"erddci.{type(record).__name__}"
    call = f"{name}({', '.join(changed)})"
    if len(call) < 80:
        return call
    return "\n".join([f"{name}(", *(f"    {each}," for each in changed), ")"])


def _literal(value: object) -> str:
    if is_dataclass(value):
        return _call(value)
    return _quoted(value) if isinstance(value, str) else repr(value)


def _quoted(text: str) -> str:
    """A string in double quotes, as Python reads it too."""
    return json.dumps(text, ensure_ascii=False)
