"""What the figures and tables measure: each function returns a tidy DataFrame.

A row is one picture (or one node of one walk), a column one quantity.  "vae" in a column's name
means that the reference is the VAE round trip of the picture, "input" that it is the picture
itself; latent errors compare with the latents that the walk started from.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from erddci import toy
from erddci.grid import Grid
from erddci.guidance import Condition, Denoiser
from erddci.images import Picture
from erddci.inversion import METHODS, dual_chain, invert, reconstruct
from erddci.metrics import compare
from erddci.model import StableDiffusion
from erddci.trajectory import Trajectory

Pictures = Sequence[tuple[Image.Image, str]]


def error_accumulation(
    model: StableDiffusion,
    pictures: Pictures,
    scales: Iterable[float] = (1, 3, 7.5),
    steps: int = 50,
) -> pd.DataFrame:
    """Error of DDIM inversion at every node of the way back, by guidance scale.

    A picture is inverted either at w = 1, as is usual, or at the scale of the way back.

    Returns:
        one row per picture, scale, inversion ("unguided" or "same scale") and node: the RMS and
        the largest latent error there, and at node 0 the measures of the picture.
    """
    x = model.encode([picture for picture, _ in pictures])
    images, round_trips = [model.read(picture) for picture, _ in pictures], model.decode(x)
    prompts, rows = [prompt for _, prompt in pictures], []
    unguided = invert(model, x, model.condition(prompts), "ddim", steps)
    for w in tqdm(list(scales), "guidance scales", delay=1):
        guided = model.condition(prompts, guidance_scale=w)
        # At w = 1 both are one walk.
        same = unguided if w == 1 else invert(model, x, guided, "ddim", steps)
        for name, path in {"unguided": unguided, "same scale": same}.items():
            back = reconstruct(model, path, guided)
            decoded = model.decode(back.image)
            for number, (image, round_trip) in enumerate(zip(images, round_trips, strict=True)):
                walk = {"picture": number, "guidance_scale": w, "inverted": name}
                at_end = measures(decoded[number], image, round_trip)
                for node in latent_errors(path, back, number):
                    rows.append(walk | node | (at_end if node["node"] == 0 else {}))
    return pd.DataFrame(rows)


def way_back(
    model: StableDiffusion,
    picture: Image.Image,
    prompt: str,
    scales: Iterable[float] = (1, 3, 7.5),
    nodes: Sequence[int] = (50, 40, 30, 20, 10, 1),
    method: str = "ddim",
) -> dict[float, np.ndarray]:
    """What the way back aims at from some nodes, decoded, by guidance scale.

    The picture is inverted at w = 1 in as many steps as the highest node; the last of `nodes`
    should be 1, whose aim is the reconstruction.

    Returns:
        pictures [nodes, height, width, 3] by guidance scale.
    """
    x, condition = model.encode(picture), model.condition(prompt)
    path = invert(model, x, condition, method, max(nodes))
    walks = {w: reconstruct(model, path, condition.at(w)) for w in scales}
    chosen = [node - 1 for node in nodes]
    return {w: model.decode(walk.estimates[chosen, 0]) for w, walk in walks.items()}


def reconstruction(
    model: StableDiffusion,
    pictures: Pictures,
    methods: Iterable[str] = ("ddim", "dual-chain"),
    scales: Iterable[float] = (1,),
    steps: int = 50,
    **options: object,
) -> pd.DataFrame:
    """How well methods bring pictures back, inverted at w = 1 and walked back at each scale.

    Returns:
        one row per picture, method and scale: measures against both references, latent errors,
        network rows up and back.
    """
    rows = []
    for number, (picture, prompt) in enumerate(tqdm(pictures, "pictures", delay=1)):
        x, image, round_trip = _start(model, picture)
        condition = model.condition(prompt)
        for method in methods:
            path = invert(model, x, condition, method, steps, **options)
            for w in scales:
                back = reconstruct(model, path, condition.at(w))
                rows.append(
                    {"picture": number, "method": method, "guidance_scale": w, "steps": steps}
                    | measures(model.decode(back.image)[0], image, round_trip)
                    | latent_errors(path, back)[0]
                    | {"rows up": path.rows, "rows back": back.rows}
                )
    return pd.DataFrame(rows).drop(columns=["node", "t"])


def reconstructions(
    model: StableDiffusion,
    picture: Picture,
    prompt: str,
    methods: Iterable[str] = tuple(METHODS),
    guidance_scale: float = 1.0,
    steps: int = 50,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """One picture by every method, each inverted at the guidance scale that its paper asks for.

    Returns:
        the VAE round trip [height, width, 3], and the reconstruction of each method.
    """
    x, _, round_trip = _start(model, picture)
    condition, found = model.condition(prompt, guidance_scale=guidance_scale), {}
    for method in tqdm(list(methods), "methods", delay=1):
        start = condition if METHODS[method].guided else condition.at(1)
        back = reconstruct(model, invert(model, x, start, method, steps), condition)
        found[method] = model.decode(back.image)[0]
    return round_trip, found


def reconstruct_one(
    model: StableDiffusion,
    picture: Picture,
    prompt: str = "",
    method: str = "dual-chain",
    steps: int = 50,
    guidance_scale: float = 1.0,
) -> tuple[dict[str, float], Image.Image]:
    """Bring one picture back: the row that `reconstruction` would give it, and the result."""
    x, image, round_trip = _start(model, picture)
    condition = model.condition(prompt)
    path = invert(model, x, condition, method, steps)
    back = reconstruct(model, path, condition.at(guidance_scale))
    row = measures(model.decode(back.image)[0], image, round_trip) | latent_errors(path, back)[0]
    row |= {"rows up": path.rows, "rows back": back.rows}
    pixels = np.round(model.decode(back.image)[0] * 255).astype(np.uint8)
    return row, Image.fromarray(pixels)


def vae_floor(model: StableDiffusion, pictures: Pictures) -> pd.DataFrame:
    """The VAE round trip of pictures against the pictures: no method can do better than this."""
    rows = []
    for number, (picture, _) in enumerate(pictures):
        _, image, round_trip = _start(model, picture)
        rows.append({"picture": number} | compare(image, round_trip))
    return pd.DataFrame(rows)


def noise_trajectories(
    model: Denoiser, x: Tensor, condition: Condition, scale: float = 1, steps: int = 50
) -> pd.DataFrame:
    """Predicted noise of one latent along three walks, in their first principal components.

    The walks are DDIM inversion at w = 1, DDIM inference at `scale`, and dual-chain inference at
    `scale`.  The components are those of the three walks together.

    Returns:
        one row per walk and step, with columns walk, node, t, pc1, pc2, pc3 and `explained`, the
        share of variance that each component explains, in the attributes.
    """
    if len(x) != 1:
        raise ValueError(f"expected one latent [1, C, H, W], got {len(x)}")
    up = invert(model, x, condition.at(1), "ddim", steps)
    chains = invert(model, x, condition.at(1), "dual-chain", steps)
    walks = {
        "DDIM inversion": up,
        "DDIM inference": reconstruct(model, up, condition.at(scale)),
        "dual-chain inference": reconstruct(model, chains, condition.at(scale)),
    }
    noise = torch.cat([walk.eps.flatten(1) for walk in walks.values()])  # [3N, C·H·W]
    centred = noise - noise.mean(0)
    left, strength, _ = torch.linalg.svd(centred, full_matrices=False)
    points = (left * strength)[:, :3].cpu()
    frame = pd.DataFrame(points.numpy(), columns=[f"pc{n + 1}" for n in range(points.shape[1])])
    frame.insert(0, "walk", np.repeat(list(walks), up.grid.steps))
    frame.insert(1, "node", np.tile(np.arange(1, up.grid.steps + 1), len(walks)))
    frame.insert(2, "t", np.tile(up.grid.t[1:].numpy(), len(walks)))
    shares = (strength**2 / (strength**2).sum())[:3].tolist()
    frame.attrs["explained"] = shares
    return frame


def step_size(
    steps: Iterable[int] = (10, 20, 50, 100, 200, 500),
    methods: Iterable[str] = ("ddim", "dual-chain"),
    count: int = 200,
    seed: int = 0,
) -> pd.DataFrame:
    """Error of methods on the toy mixture at w = 1, by number of steps."""
    model = toy.three_clusters()
    x = model.sample(count, "", torch.Generator().manual_seed(seed))
    rows = []
    for method in methods:
        for n in steps:
            path = invert(model, x, model.condition(), method, n)
            error = latent_errors(path, reconstruct(model, path))[0]
            rows.append({"method": method, "steps": n} | error)
    return pd.DataFrame(rows).drop(columns=["node", "t"])


def network_rows(
    model: Denoiser, x: Tensor, condition: Condition, steps: int = 50
) -> pd.DataFrame:
    """Count the network rows of a reconstruction at w = 1 by the dual chain, in three orders.

    "as published" repeats the authors' order of calls: two calls for each step up, and for each
    step back both rows of classifier-free guidance although w = 1.
    """
    published = published_order(model, x, condition, steps)
    rows = [{"order": "as published"} | published]
    for name, asks in {"noise kept": "target", "noise kept and shared": "source"}.items():
        path = invert(model, x, condition.at(1), "dual-chain", steps, asks=asks)
        back = reconstruct(model, path)
        error = path.drift(back).max().item()
        rows.append({"order": name, "up": path.rows, "back": back.rows, "latent max": error})
    frame = pd.DataFrame(rows)
    frame.insert(3, "total", frame["up"] + frame["back"])
    return frame


@torch.no_grad()
def published_order(
    model: Denoiser, x: Tensor, condition: Condition, steps: int
) -> dict[str, float]:
    """Dual-chain reconstruction at w = 1 in the authors' order of calls: 4N network rows.

    Source: the authors' reconstruction code, re-expressed.
    """
    grid, start = model.grid(steps), model.rows
    condition, null, first = condition.at(1), condition.at(0), x
    z, zs = x, [x]
    for i in grid.up():
        z = grid.move(z, model(z, grid.t[i], condition), i - 1, i)
        x = grid.move(x, model(z, grid.t[i], condition), i - 1, i)
        zs.append(z)
    top = model.rows
    for i in grid.down():
        unconditional = model(zs[i], grid.t[i], null)
        conditional = model(zs[i], grid.t[i], condition)
        eps = unconditional + 1.0 * (conditional - unconditional)
        x = grid.move(x, eps, i, i - 1)
    up, back = (top - start) / len(x), (model.rows - top) / len(x)
    return {"up": up, "back": back, "latent max": (x - first).abs().max().item()}


def step_order(steps: int = 3, asks: str = "target") -> pd.DataFrame:
    """The order in which `dual_chain` asks the network and moves its chains, read off a run.

    Every latent and every noise of the run is given a value of its own, so each can be recognised
    in what the grid is asked to move and the network is asked to judge.

    Returns:
        one row per event: "ask" with the chain and node of the latent and the node of the
        timestep, or "move" with the chain, its start and end, and the number of the ask whose
        noise it moved along.
    """
    spy = _Spy(steps)
    start = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    spy.names[0.0] = ("z", 0)
    dual_chain(spy, start, _NOTHING, spy.recorder, asks=asks)
    return pd.DataFrame(spy.events)


_NOTHING = Condition(torch.zeros(1, 1, 1), torch.zeros(1, 1, 1))


class _Spy:
    """A denoiser and a grid that write down what they are asked."""

    def __init__(self, steps: int) -> None:
        self.rows, self.name, self.events = 0, "spy", []
        self.names: dict[float, tuple[str, int]] = {}
        self.asked: dict[float, int] = {}
        spy = self

        class Recorder(Grid):
            def move(self, x: Tensor, eps: Tensor, start: int, end: int) -> Tensor:
                return spy.moved(x, eps, start, end)

        self.recorder = Recorder(
            torch.arange(steps + 1), torch.linspace(1, 0.1, steps + 1, dtype=torch.float64)
        )

    def grid(self, steps: int) -> Grid:
        return self.recorder

    def __call__(self, x: Tensor, t: Tensor, condition: Condition) -> Tensor:
        answers = []
        for row, node in zip(x.flatten().tolist(), t.expand(len(x)).tolist(), strict=True):
            self.rows += 1
            answer = -float(self.rows)
            self.asked[answer] = self.rows
            chain, stands = self.names[row]
            event = {"event": "ask", "chain": chain, "start": stands, "end": node}
            self.events.append(event | {"ask": self.rows})
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


def _start(model: StableDiffusion, picture: Picture) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """A picture's latents, and as floats the picture itself and its VAE round trip."""
    x = model.encode(picture)
    return x, model.read(picture), model.decode(x)[0]


def measures(decoded: np.ndarray, image: np.ndarray, round_trip: np.ndarray) -> dict[str, float]:
    """Measures of a picture against both references: "psnr vae", "psnr input" and so on."""
    vae, given = compare(round_trip, decoded), compare(image, decoded)
    return {f"{k} vae": v for k, v in vae.items()} | {f"{k} input": v for k, v in given.items()}


def latent_errors(
    path: Trajectory, back: Trajectory, number: int | None = None
) -> list[dict[str, float]]:
    """RMS and largest latent error at every node, of one sample or over all."""
    rms = (path.xs - back.xs).square().flatten(2).mean(2)  # [N + 1, B]
    largest, of = path.drift(back), slice(number, number + 1 if number is not None else None)
    rms, largest = rms[:, of].mean(1).sqrt().tolist(), largest[:, of].amax(1).tolist()
    return [
        {"node": node, "t": t, "latent rms": rms[node], "latent max": largest[node]}
        for node, t in enumerate(path.grid.t.tolist())
    ]
