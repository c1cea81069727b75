"""The loop that trains a network: it checkpoints, resumes, and keeps a moving average.

A batch and the learning rate depend on the step alone, so that a run which was interrupted goes
on as if it had not been, also with more or fewer steps than it began with.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors.torch import load_model, save_model
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm.auto import tqdm

from erddci.training.muon import Muon
from erddci.training.norm import quicken

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Recipe:
    """How long and how fast to train."""

    steps: int
    learning_rate: float
    ratio: float = 5.0  # Muon's learning rate to AdamW's
    warm_up: int = 100  # steps
    decay: float = 0.998  # of the moving average
    every: int = 250  # steps between checkpoints

    def rate(self, step: int) -> float:
        """The learning rate of a step: a line up, and a line down to nothing."""
        return self.learning_rate * min((step + 1) / self.warm_up, 1.0) * (1 - step / self.steps)


def train(
    network: Network, loss: Callable[[Network, int], Tensor], folder: Path, recipe: Recipe
) -> Network:
    """Minimise `loss(network, step)` in bfloat16 autocast, and return the moving average.

    Every so many steps the whole state goes to `folder/checkpoint.pt`, the average's weights to
    `folder/weights.safetensors` and the mean loss to `folder/loss.csv`.  Training goes on from
    the checkpoint if it is there, or starts from the weights alone if these are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint, weights = folder / "checkpoint.pt", folder / "weights.safetensors"
    if weights.exists() and not checkpoint.exists():
        load_model(network, weights)
    network.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    quicken(network)
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(recipe.decay))
    optimizer = Muon(network.parameters(), recipe.learning_rate, recipe.ratio)
    parts = {"network": network, "average": average, "optimizer": optimizer}
    start = _resume(parts, checkpoint)
    losses, began = [], time.monotonic()
    for step in tqdm(range(start, recipe.steps), folder.name, initial=start, total=recipe.steps):
        losses.append(_update(network, loss, optimizer, recipe.rate(step), step))
        average.update_parameters(network)
        if (step + 1) % recipe.every == 0 or step + 1 == recipe.steps:
            _save(parts, checkpoint, step + 1)
            save_model(average.module, str(weights))
            _log(folder / "loss.csv", step + 1, losses, time.monotonic() - began)
            losses, began = [], time.monotonic()
    return average.module.eval()  # type: ignore[return-value]


def _update(
    network: Network,
    loss: Callable[[Network, int], Tensor],
    optimizer: Muon,
    rate: float,
    step: int,
) -> float:
    optimizer.set_rate(rate)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(network, step)
    value.backward()
    nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return value.item()


def _resume(parts: dict[str, Any], checkpoint: Path) -> int:
    """Load the state of all parts from a checkpoint, if it is there, and return its step."""
    if not checkpoint.exists():
        return 0
    state = torch.load(checkpoint, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return state["step"]


def _save(parts: dict[str, Any], checkpoint: Path, step: int) -> None:
    """Write the state of all parts; an interruption leaves the checkpoint before whole."""
    state = {name: part.state_dict() for name, part in parts.items()}
    torch.save({"step": step, **state}, checkpoint.with_suffix(".part"))
    checkpoint.with_suffix(".part").replace(checkpoint)


def _log(path: Path, step: int, losses: list[float], seconds: float) -> None:
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(["step", "loss", "seconds"])
        writer.writerow([step, f"{np.mean(losses):.6f}", f"{seconds:.1f}"])
