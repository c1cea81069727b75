"""The record of a walk between image and noise: what both directions of every method return."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from erddci.grid import Grid
from erddci.guidance import Condition, GuidanceSchedule


@dataclass(frozen=True)
class Trajectory:
    """Latents at every node of a grid, and whatever a method keeps to walk back.

    Args:
        grid: the noise levels.
        xs: the chain that starts at the image [N + 1, B, C, H, W], node 0 first.
        condition: the prompt it was walked under.
        kept: a method's own tensors; first axis the node or the step.
        method, model: names, checked before a walk back.
        rows: network rows evaluated per sample.
    """

    grid: Grid
    xs: Tensor
    condition: Condition
    kept: dict[str, Tensor] = field(default_factory=dict)
    method: str = ""
    model: str = ""
    nfe: float = 0.0

    @property
    def x0(self) -> Tensor:
        """The latent at node 0 [B, C, H, W]."""
        return self.xs[0]

    @property
    def xT(self) -> Tensor:
        """The latent at node N [B, C, H, W]."""
        return self.xs[-1]

    @property
    def eps(self) -> Tensor:
        """The noise along which each step moved [N, B, C, H, W], step i − 1 → i at index i − 1.

        It is read off the latents, Δy/Δσ with y = x/√ᾱ, so it needs no network; a step between
        nodes of equal noise level moved along none.
        """
        shape = (-1, 1, 1, 1, 1)
        y = self.xs / self.grid.alphas.sqrt().reshape(shape).to(self.xs)
        change = self.grid.sigmas.diff().reshape(shape).to(self.xs)
        return torch.where(change == 0, 0, y.diff(dim=0) / change)

    @property
    def pred_x0(self) -> Tensor:
        """The clean latent that each step aimed at [N, B, C, H, W]: x̂_0 = x_i/√ᾱ_i − σ_i·ε."""
        shape = (-1, 1, 1, 1, 1)
        alphas = self.grid.alphas[1:].reshape(shape).to(self.xs)
        return (self.xs[1:] - (1 - alphas).sqrt() * self.eps) / alphas.sqrt()

    def latent_error(self, other: Trajectory) -> Tensor:
        """Largest absolute difference of two walks at each node [N + 1, B], in latent units.

        Raises:
            ValueError: the walks have other shapes, so they are not on one grid.
        """
        if self.xs.shape != other.xs.shape:
            raise ValueError(
                f"expected walks of one shape, got {tuple(self.xs.shape)} "
                f"and {tuple(other.xs.shape)}: compare walks of as many steps and samples"
            )
        return (self.xs - other.xs.to(self.xs)).abs().flatten(2).amax(2)

    def truncate(self, node: int) -> Trajectory:
        """The part of the walk between the image and a node, 1…N.

        Raises:
            ValueError: no such node.
        """
        if not 1 <= node <= self.grid.num_steps:
            raise ValueError(f"expected a node between 1 and {self.grid.num_steps}, got {node}")
        grid = Grid(self.grid.t[: node + 1], self.grid.alphas[: node + 1])
        # Kept tensors count nodes or steps; what counts neither belongs to the whole walk.
        ends = {self.grid.num_steps + 1: node + 1, self.grid.num_steps: node}
        kept = {
            name: tensor[: ends[len(tensor)]] if tensor.ndim and len(tensor) in ends else tensor
            for name, tensor in self.kept.items()
        }
        return replace(self, grid=grid, xs=self.xs[: node + 1], kept=kept)

    def repeat(self, times: int) -> Trajectory:
        """The same walk several times over in one batch, all samples first once, then again."""
        kept = {
            name: tensor.repeat(1, times, *[1] * (tensor.ndim - 2)) if tensor.ndim > 2 else tensor
            for name, tensor in self.kept.items()
        }
        samples = self.xs.shape[1]
        condition = self.condition.samples(0, samples, samples)
        text, null = (e.repeat(times, 1, 1) for e in (condition.text, condition.null))
        condition = replace(condition, text=text, null=null)
        return replace(self, xs=self.xs.repeat(1, times, 1, 1, 1), kept=kept, condition=condition)

    def save(self, path: str | Path) -> Path:
        """Write the whole record to one safetensors file and return its path."""
        path = Path(path)
        words = {
            "method": self.method,
            "model": self.model,
            "nfe": self.nfe,
            "guidance_scale": self.condition.guidance_scale,
            "prompt": self.condition.prompt,
            "schedule": self.condition.schedule and asdict(self.condition.schedule),
        }
        tensors = {
            "t": self.grid.t,
            "alphas": self.grid.alphas,
            "xs": self.xs,
            "text": self.condition.text,
            "null": self.condition.null,
            **{f"kept.{name}": tensor for name, tensor in self.kept.items()},
        }
        # Clones, because safetensors refuses tensors that share memory.
        tensors = {name: tensor.cpu().contiguous().clone() for name, tensor in tensors.items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, path, metadata={"trajectory": json.dumps(words)})
        return path

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "cpu") -> Trajectory:
        """Read a record that `save` wrote.

        Raises:
            FileNotFoundError: no such file.
            ValueError: the file holds no trajectory.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"no trajectory at {path}")
        try:
            with safe_open(path, "pt", device=str(device)) as file:
                words = json.loads((file.metadata() or {})["trajectory"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except Exception as error:
            raise ValueError(f"{path} holds no trajectory: expected a file of `save`") from error
        kept = {n.removeprefix("kept."): v for n, v in tensors.items() if n.startswith("kept.")}
        schedule = words.pop("schedule", None)
        if schedule:
            schedule = GuidanceSchedule(**schedule | {"interval": tuple(schedule["interval"])})
        w, prompt = words.pop("guidance_scale"), words.pop("prompt")
        condition = Condition(tensors["text"], tensors["null"], w, prompt, schedule)
        grid = Grid(tensors["t"].cpu(), tensors["alphas"].cpu())
        return cls(grid, tensors["xs"], condition, kept, **words)
