"""In which order the dual chain evaluates the network, and what that costs."""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor

from erddci.grid import Grid
from erddci.guidance import Condition, Model
from erddci.inversion import invert, reconstruct
from erddci.methods import dual_chain


def nfe_by_order(model: Model, x: Tensor, condition: Condition, steps: int = 50) -> pd.DataFrame:
    """Count function evaluations of a dual-chain reconstruction at w = 1, in three orders.

    "as published" repeats the authors' order of calls: two for each step of the inversion, and
    for each step of sampling both predictions of classifier-free guidance although w = 1.

    Returns:
        one row per order: NFE of inversion and sampling, their sum, and the largest latent error.
    """
    rows = [{"order": "as published"} | published_order(model, x, condition, steps)]
    for name, timestep in {"noise kept": "next", "noise kept and shared": "current"}.items():
        path = invert(model, x, condition.with_guidance(1), "dual-chain", steps, timestep=timestep)
        back = reconstruct(model, path)
        row = {"order": name, "nfe_inversion": path.nfe, "nfe_sampling": back.nfe}
        rows.append(row | {"latent_max": path.latent_error(back).max().item()})
    frame = pd.DataFrame(rows)
    frame.insert(3, "nfe", frame["nfe_inversion"] + frame["nfe_sampling"])
    return frame


@torch.no_grad()
def published_order(model: Model, x: Tensor, condition: Condition, steps: int) -> dict[str, float]:
    """Dual-chain reconstruction at w = 1 in the authors' order of calls: 4N evaluations.

    Source: the authors' reconstruction code, re-expressed.
    """
    grid = model.grid(steps)
    start = model.nfe
    condition = condition.with_guidance(1)
    first = x
    z = x
    zs = [x]
    for i in grid.inversion_nodes():
        z = grid.step(z, model(z, grid.t[i], condition), i - 1, i)
        x = grid.step(x, model(z, grid.t[i], condition), i - 1, i)
        zs.append(z)
    inverted = model.nfe
    for i in grid.sampling_nodes():
        unconditional = model(zs[i], grid.t[i], condition.with_guidance(0))
        conditional = model(zs[i], grid.t[i], condition)
        eps = unconditional + 1.0 * (conditional - unconditional)
        x = grid.step(x, eps, i, i - 1)
    return {
        "nfe_inversion": (inverted - start) / len(x),
        "nfe_sampling": (model.nfe - inverted) / len(x),
        "latent_max": (x - first).abs().max().item(),
    }


def step_order(steps: int = 3, timestep: str = "next") -> pd.DataFrame:
    """The order in which `dual_chain` evaluates the network and steps its chains, read off a run.

    Every latent and every noise of the run is given a value of its own, so each can be recognised
    in what the grid is asked to step and the network to predict the noise of.

    Returns:
        one row per event: "ask" with the chain and node of the latent and the node of the
        timestep, or "move" with the chain, its start and end, and the number of the ask whose
        noise it moved along.
    """
    spy = _Spy(steps)
    start = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    spy.names[0.0] = ("z", 0)
    dual_chain(spy, start, _NOTHING, spy.recorder, timestep=timestep)
    return pd.DataFrame(spy.events)


_NOTHING = Condition(torch.zeros(1, 1, 1), torch.zeros(1, 1, 1))


class _Spy:
    """A denoiser and a grid that write down what they are asked."""

    def __init__(self, steps: int) -> None:
        self.nfe, self.name, self.events = 0, "spy", []
        self.names: dict[float, tuple[str, int]] = {}
        self.asked: dict[float, int] = {}
        spy = self

        class Recorder(Grid):
            def step(self, x: Tensor, eps: Tensor, start: int, end: int) -> Tensor:
                return spy.moved(x, eps, start, end)

        self.recorder = Recorder(
            torch.arange(steps + 1), torch.linspace(1, 0.1, steps + 1, dtype=torch.float64)
        )

    def grid(self, steps: int) -> Grid:
        return self.recorder

    def __call__(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        answers = []
        for row, node in zip(x.flatten().tolist(), t.expand(len(x)).tolist(), strict=True):
            self.nfe += 1
            answer = -float(self.nfe)
            self.asked[answer] = self.nfe
            chain, stands = self.names[row]
            event = {"event": "ask", "chain": chain, "start": stands, "end": node}
            self.events.append(event | {"ask": self.nfe})
            answers.append(answer)
        return torch.tensor(answers, dtype=x.dtype).reshape(x.shape)

    def moved(self, x: Tensor, eps: Tensor, start: int, end: int) -> Tensor:
        ask = self.asked[eps.item()]
        # The first move to a node is the original chain's: the other needs the noise there.
        chain = "x" if ("z", end) in self.names.values() else "z"
        self.events.append(
            {"event": "move", "chain": chain, "start": start, "end": end, "ask": ask}
        )
        result = 100.0 + len(self.events)
        self.names[result] = (chain, end)
        return torch.full_like(x, result)
