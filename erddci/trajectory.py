"""The record of an inversion or a reconstruction: what both directions of every method return."""

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
from erddci.notices import notify

# The three kinds of tensors that a method may store beside its latents.
STORED_KINDS = ("per_node", "per_step", "constants")


@dataclass(frozen=True)
class Trajectory:
    """Latents at every node of a grid, and whatever a method stores to sample back along them.

    Args:
        grid: the noise levels.
        xs: the chain that starts at the image [N + 1, B, C, H, W], node 0 first.
        condition: the prompt and guidance to sample under.
        guided: whether the inversion was under that guidance too; if not, it was at w = 1.
        per_node: stored tensors [N + 1, B, …], or [N + 1].
        per_step: stored tensors [N, B, …], or [N], the step between nodes i − 1 and i at i − 1.
        constants: stored tensors of no such axis.
        method, model: their names.
        fingerprint: all that decides what the model computes, checked before a reconstruction or
            an edit.
        nfe: function evaluations per sample.
    """

    grid: Grid
    xs: Tensor
    condition: Condition
    guided: bool = True
    per_node: dict[str, Tensor] = field(default_factory=dict)
    per_step: dict[str, Tensor] = field(default_factory=dict)
    constants: dict[str, Tensor] = field(default_factory=dict)
    method: str = ""
    model: str = ""
    fingerprint: str = ""
    nfe: float = 0.0

    @property
    def x0(self) -> Tensor:
        """The latents of the image, at node 0 [B, C, H, W]."""
        return self.xs[0]

    @property
    def xT(self) -> Tensor:  # noqa: N802 (the field writes x_T)
        """The latents at node N, noise [B, C, H, W]."""
        return self.xs[-1]

    @property
    def inversion_condition(self) -> Condition:
        """The prompt and guidance that the inversion was under."""
        return self.condition if self.guided else self.condition.with_guidance(1)

    @property
    def eps(self) -> Tensor:
        """The noise along which each step went [N, B, C, H, W], step i − 1 → i at index i − 1.

        It is read off the latents, Δy/Δσ with y = x/√ᾱ, so it needs no network; a step between
        nodes of equal noise level went along none.
        """
        shape = (-1, 1, 1, 1, 1)
        y = self.xs / self.grid.alphas.sqrt().reshape(shape).to(self.xs)
        change = self.grid.sigmas.diff().reshape(shape).to(self.xs)
        return torch.where(change == 0, 0, y.diff(dim=0) / change)

    @property
    def pred_x0(self) -> Tensor:
        """The clean latents that each step predicted [N, B, C, H, W]: x̂_0 = x_i/√ᾱ_i − σ_i·ε."""
        shape = (-1, 1, 1, 1, 1)
        alphas = self.grid.alphas[1:].reshape(shape).to(self.xs)
        return (self.xs[1:] - (1 - alphas).sqrt() * self.eps) / alphas.sqrt()

    def latent_error(self, other: Trajectory) -> Tensor:
        """Largest absolute difference of two trajectories at each node [N + 1, B].

        Raises:
            ValueError: trajectories of other shapes, so not on one grid.
        """
        if self.xs.shape != other.xs.shape:
            raise ValueError(
                f"expected trajectories of one shape, got {tuple(self.xs.shape)} "
                f"and {tuple(other.xs.shape)}: compare equal numbers of steps and samples"
            )
        return (self.xs - other.xs.to(self.xs)).abs().flatten(2).amax(2)

    def truncate(self, node: int) -> Trajectory:
        """The part between the image and a node, 1…N.

        Raises:
            ValueError: no such node.
        """
        if not 1 <= node <= self.grid.num_steps:
            raise ValueError(f"expected a node between 1 and {self.grid.num_steps}, got {node}")
        return replace(
            self,
            grid=Grid(self.grid.t[: node + 1], self.grid.alphas[: node + 1]),
            xs=self.xs[: node + 1],
            per_node={name: tensor[: node + 1] for name, tensor in self.per_node.items()},
            per_step={name: tensor[:node] for name, tensor in self.per_step.items()},
        )

    def with_strength(self, strength: float) -> Trajectory:
        """The part between the image and a share of the steps, for an edit of that strength.

        Raises:
            ValueError: a strength outside (0, 1].
        """
        if not 0 < strength <= 1:
            raise ValueError(f"expected strength in (0, 1], got {strength}")
        steps = self.grid.num_steps
        count = round(strength * steps)
        if count == 0:
            notify(f"strength={strength:g} of {steps} steps is less than one: one is sampled")
        elif count == steps and strength < 1:
            notify(f"strength={strength:g} of {steps} steps is all of them, as strength=1")
        return self.truncate(max(1, count))

    def repeat(self, times: int) -> Trajectory:
        """The same trajectory several times over in one batch: all samples once, then again."""
        samples = self.xs.shape[1]
        condition = self.condition.samples(0, samples, samples)
        return replace(
            self,
            xs=_repeat(self.xs, times),
            condition=replace(
                condition,
                text=condition.text.repeat(times, 1, 1),
                null=condition.null.repeat(times, 1, 1),
            ),
            per_node={name: _repeat(tensor, times) for name, tensor in self.per_node.items()},
            per_step={name: _repeat(tensor, times) for name, tensor in self.per_step.items()},
        )

    def save(self, path: str | Path) -> Path:
        """Write the whole record to one safetensors file and return its path."""
        path = Path(path)
        tensors = {
            "t": self.grid.t,
            "alphas": self.grid.alphas,
            "xs": self.xs,
            "text": self.condition.text,
            "null": self.condition.null,
        }
        for kind in STORED_KINDS:
            stored = getattr(self, kind)
            tensors |= {f"{kind}.{name}": tensor for name, tensor in stored.items()}
        # Clones, because safetensors refuses tensors that share memory.
        tensors = {name: tensor.cpu().contiguous().clone() for name, tensor in tensors.items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        # A file that is there is whole: an interruption leaves only the partial one.
        partial = path.with_name(f".{path.name}.partial")
        save_file(tensors, partial, metadata={"trajectory": json.dumps(self._words())})
        return partial.replace(path)

    def _words(self) -> dict[str, object]:
        """What is no tensor."""
        return {
            "method": self.method,
            "model": self.model,
            "fingerprint": self.fingerprint,
            "nfe": self.nfe,
            "guided": self.guided,
            "guidance_scale": self.condition.guidance_scale,
            "prompt": self.condition.prompt,
            "negative_prompt": self.condition.negative_prompt,
            "schedule": self.condition.schedule and asdict(self.condition.schedule),
        }

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
        schedule = words.pop("schedule")
        if schedule:
            schedule = GuidanceSchedule(**schedule | {"interval": tuple(schedule["interval"])})
        told = {name: words.pop(name) for name in ("guidance_scale", "prompt", "negative_prompt")}
        condition = Condition(tensors["text"], tensors["null"], schedule=schedule, **told)
        grid = Grid(tensors["t"].cpu(), tensors["alphas"].cpu())
        stored = {kind: _under(kind, tensors) for kind in STORED_KINDS}
        return cls(grid, tensors["xs"], condition, **stored, **words)


def _repeat(stored: Tensor, times: int) -> Tensor:
    """Repeat the samples [·, B, …] of a stored tensor; one without samples [·] stays as it is."""
    if stored.ndim < 2:
        return stored
    return stored.repeat(1, times, *[1] * (stored.ndim - 2))


def _under(kind: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    prefix = f"{kind}."
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
