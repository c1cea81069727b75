"""What the figures and tables measure: each function returns a tidy DataFrame.

A row is one picture (or one node of one walk), a column one quantity.  "vae" in a column's name
means that the reference is the VAE round trip of the picture, "input" that it is the picture
itself; latent errors compare with the latents that the walk started from.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import product

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm
from transformers import CLIPTokenizer

from erddci import toy
from erddci.attention import Blend, control_for
from erddci.data import Example
from erddci.editing import Edit, edit
from erddci.grid import Grid
from erddci.guidance import DYNAMIC, Condition, Denoiser, Dynamic
from erddci.images import Picture
from erddci.inversion import METHODS, dual_chain, invert, reconstruct
from erddci.metrics import compare
from erddci.model import StableDiffusion
from erddci.scenes.reader import answers, load_reader
from erddci.trajectory import Trajectory
from erddci.words import words_of

Pictures = Sequence[tuple[Image.Image, str]]

# What an edit should look like, as well as the VAE can say it.
TRUTH = "true answer (VAE round trip)"

# Ways to walk back at w.  Dynamic forms are the dual chain's, and our own formulation: the
# formula of the paper's dynamic control was not available to us.
FORMS: dict[str, Dynamic | None] = {
    "dual chain": None,
    "D1 guidance near the image": Dynamic(window=(0, 400)),
    "D1 guidance fading": Dynamic(fade=4),
    "D2 mirrored": Dynamic(mirrored=True),
    "D3 anchored": Dynamic(anchor=0.2),
    "D3 clipped": Dynamic(clip=0.05),
    "D1 + D2, the noisy end": Dynamic(window=(900, 1000), mirrored=True),
    "D1 + D2, the default": DYNAMIC,
}
OTHERS = {
    "DDIM": "ddim",
    "null-text": "null-text",
    "negative-prompt": "negative-prompt",
    "direct": "direct",
}


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


def edit_one(
    model: StableDiffusion,
    picture: Picture,
    source: str,
    target: str,
    method: str = "dual-chain",
    control: str = "refine",
    steps: int = 50,
    guidance_scale: float = 7.5,
    strength: float = 1.0,
    dynamic: Dynamic | None = DYNAMIC,
    blend: bool = False,
) -> tuple[dict[str, float], Image.Image]:
    """Edit one picture: measures of the source's way back beside it, and the edited picture.

    Args:
        source, target: what the picture shows, and what it is to show.
        blend: whether only what the changed words look at may differ from the source.
    """
    x, image, round_trip = _start(model, picture)
    before, after = (
        model.condition(prompt).at(guidance_scale, dynamic) for prompt in (source, target)
    )
    prompts = [source], [target]
    steering = control_for(control, model.tokenizer, *prompts)
    local = Blend.of_changes(model.tokenizer, *prompts) if blend else None
    path = invert(model, x, climb(before, method), method, steps)
    found = edit(model, path, after, steering, blend=local, strength=strength)
    kept, changed = (model.decode(e.image)[0] for e in (source_back(model, found), found))
    row = measures(kept, image, round_trip) | {"rows up": path.rows, "rows back": found.rows}
    return row, Image.fromarray(np.round(changed * 255).astype(np.uint8))


def climb(condition: Condition, method: str) -> Condition:
    """What a method is to be inverted under for an edit under the guidance of a condition."""
    if method == "dual-chain":
        return condition.climb
    known = METHODS.get(method)
    return condition if known and known.guided else condition.at(1)


def source_back(model: StableDiffusion, found: Edit) -> Trajectory:
    """The source's way back beside an edit, walked now if the edit could do without it."""
    if found.taps or found.source.method == "dual-chain":
        return found.source
    return reconstruct(model, found.source)


def guidance_sweep(
    model: StableDiffusion,
    pictures: Pictures,
    scales: Iterable[float] = (1, 2, 3, 5, 7.5, 10, 15),
    steps: int = 20,
    ways: Iterable[str] = (*FORMS, *OTHERS),
) -> pd.DataFrame:
    """How well pictures come back by guidance scale, in ways of `FORMS` and `OTHERS`.

    All pictures are walked together, and inverted once for all scales if w has no say on the way
    up.

    Returns:
        one row per picture, way and scale: measures against both references, latent errors,
        network rows and seconds of one picture up and back.
    """
    x = model.encode([picture for picture, _ in pictures])
    images, round_trips = [model.read(picture) for picture, _ in pictures], model.decode(x)
    prompts, paths, rows = [prompt for _, prompt in pictures], {}, []
    for w in tqdm(list(scales), "guidance scales", delay=1):
        for way in ways:
            condition = model.condition(prompts).at(w, FORMS.get(way))
            path, up = _up(model, x, condition, way, steps, paths)
            start = time.perf_counter()
            back = reconstruct(model, path, condition)
            seconds, decoded = (time.perf_counter() - start) / len(x), model.decode(back.image)
            cost = {"rows up": path.rows, "rows back": back.rows}
            cost |= {"seconds up": up / len(x), "seconds back": seconds}
            for number, (image, round_trip) in enumerate(zip(images, round_trips, strict=True)):
                found = measures(decoded[number], image, round_trip)
                found |= latent_errors(path, back, number)[0] | cost
                rows.append({"picture": number, "way": way, "guidance_scale": w} | found)
    return pd.DataFrame(rows).drop(columns=["node", "t"])


def edit_sweep(
    model: StableDiffusion,
    scenes: Sequence[Example],
    scales: Iterable[float] = (1, 2, 3, 5, 7.5, 10, 15),
    steps: int = 10,
    ways: Iterable[str] = tuple(FORMS),
) -> pd.DataFrame:
    """How near edits come to their true answers by guidance scale, without attention control.

    Returns:
        one row per scene, way and scale: the columns of `edit_measures`, and network rows.
    """
    x, ends = model.encode([scene.image for scene in scenes]), ("source", "target")
    truths = model.decode(model.encode([scene.truth for scene in scenes]))
    source, target = (model.condition([getattr(s, end) for s in scenes]) for end in ends)
    paths, rows = {}, []
    for w, way in tqdm(list(product(scales, ways)), "scales and ways", delay=1):
        dynamic = FORMS.get(way)
        path, _ = _up(model, x, source.at(w, dynamic), way, steps, paths)
        found = edit(model, path, target.at(w, dynamic))
        told = {"way": way, "guidance_scale": w, "rows up": path.rows, "rows back": found.rows}
        rows += [told | row for row in edit_rows(scenes, model.decode(found.image), truths)]
    return pd.DataFrame(rows)


def _up(
    model: StableDiffusion, x: Tensor, condition: Condition, way: str, steps: int, paths: dict
) -> tuple[Trajectory, float]:
    """Invert as a way is meant to be, once for all that climb alike, and say how long it took."""
    method = OTHERS.get(way, "dual-chain")
    told = climb(condition, method)
    key = method, told.guidance_scale, told.dynamic if told.guidance_scale != 1 else None
    if key not in paths:
        start = time.perf_counter()
        paths[key] = invert(model, x, told, method, steps), time.perf_counter() - start
    return paths[key]


def climbed(
    model: StableDiffusion,
    scenes: Sequence[Example],
    method: str = "dual-chain",
    guidance_scale: float = 7.5,
    steps: int = 20,
    dynamic: Dynamic | None = None,
) -> Trajectory:
    """Invert scenes under their source prompts, as a method is meant to be for edits at w."""
    source = model.condition([scene.source for scene in scenes]).at(guidance_scale, dynamic)
    x = model.encode([scene.image for scene in scenes])
    return invert(model, x, climb(source, method), method, steps)


def edited(
    model: StableDiffusion,
    scenes: Sequence[Example],
    path: Trajectory,
    guidance_scale: float = 7.5,
    dynamic: Dynamic | None = None,
    control: str = "none",
    cross: float = 0.4,
    itself: float = 0.2,
) -> np.ndarray:
    """Edit scenes along their path of `climbed`: decoded pictures [scenes, height, width, 3].

    Args:
        control: one of `erddci.attention.CONTROLS`.
        cross, itself: as of `erddci.attention.control_for`.
    """
    sources, targets = ([getattr(s, end) for s in scenes] for end in ("source", "target"))
    target = model.condition(targets).at(guidance_scale, dynamic)
    steering = control_for(control, model.tokenizer, sources, targets, cross, itself)
    return model.decode(edit(model, path, target, steering).image)


def edit_gallery(
    model: StableDiffusion,
    scenes: Sequence[Example],
    ways: Mapping[str, tuple[str, str, Dynamic | None]],
    guidance_scale: float = 7.5,
    steps: int = 20,
) -> tuple[dict[str, np.ndarray], pd.DataFrame]:
    """Edit scenes in several ways, beside what each edit should look like.

    Args:
        ways: method, attention control and dynamic control by name.

    Returns:
        pictures [scenes, height, width, 3] by way, the first named "input" and the last `TRUTH`,
        and of all but the last one row per scene and way with the columns of `edit_measures`.
    """
    images = {"input": np.stack([model.read(scene.image) for scene in scenes])}
    for name, (method, control, dynamic) in tqdm(ways.items(), "ways to edit", delay=1):
        path = climbed(model, scenes, method, guidance_scale, steps, dynamic)
        images[name] = edited(model, scenes, path, guidance_scale, dynamic, control)
    truths = model.decode(model.encode([scene.truth for scene in scenes]))
    rows = [
        {"way": name} | r for name, each in images.items() for r in edit_rows(scenes, each, truths)
    ]
    return images | {TRUTH: truths}, pd.DataFrame(rows)


def injection_sweep(
    model: StableDiffusion,
    scenes: Sequence[Example],
    shares: Sequence[float] = (0, 0.2, 0.4, 0.6, 0.8),
    guidance_scale: float = 7.5,
    steps: int = 20,
    dynamic: Dynamic | None = DYNAMIC,
    kind: str = "refine",
) -> tuple[dict[tuple[float, float], np.ndarray], pd.DataFrame]:
    """Edit scenes along the dual chain by how much attention is taken from the source.

    Returns:
        pictures [scenes, height, width, 3] by the shares of the walk for which cross-attention and
        self-attention are the source's, and one row per scene and pair of shares with "cross",
        "itself" and the columns of `edit_measures`.
    """
    path = climbed(model, scenes, "dual-chain", guidance_scale, steps, dynamic)
    truths = model.decode(model.encode([scene.truth for scene in scenes]))
    images, rows = {}, []
    for cross, itself in tqdm(list(product(shares, repeat=2)), "shares", delay=1):
        chosen = kind if cross or itself else "none"
        found = edited(model, scenes, path, guidance_scale, dynamic, chosen, cross, itself)
        images[cross, itself] = found
        given = {"cross": cross, "itself": itself}
        rows += [given | row for row in edit_rows(scenes, found, truths)]
    return images, pd.DataFrame(rows)


def word_maps(
    tokenizer: CLIPTokenizer, prompt: str, maps: Tensor, chosen: Iterable[str] | None = None
) -> list[tuple[str, np.ndarray]]:
    """Where the words of a prompt look, in order: the sum of the maps of each one's tokens.

    Args:
        maps: one map a token [1, L, H, W], from `erddci.attention.Taps.maps`.
        chosen: words to keep; all by default.
    """
    found, kept = words_of(tokenizer, prompt).values(), None if chosen is None else set(chosen)
    return [
        (word, maps[0, places].sum(0).cpu().numpy())
        for word, places in found
        if kept is None or word in kept
    ]


def edit_rows(
    scenes: Sequence[Example], images: np.ndarray, truths: np.ndarray
) -> list[dict[str, float]]:
    """What `edit_measures` says of each scene's edit."""
    read = zip(scenes, images, truths, load_reader().read(images), strict=True)
    return [{"picture": n} | edit_measures(*each) for n, each in enumerate(read)]


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


def edit_measures(
    example: Example, image: np.ndarray, truth: np.ndarray, said: dict[str, str]
) -> dict[str, float]:
    """How near an edit is to its true answer, and whether it did what was asked and nothing else.

    Args:
        image, truth: the edit, and the VAE round trip of the true answer [H, W, 3] in [0, 1].
        said: what the scene reader says of `image`.

    Returns:
        "psnr truth" and so on, against `truth`; "background", PSNR in dB to `truth` where neither
        picture has a thing; "asked" and "kept", the shares of what should differ from the source,
        and of all else, that reads as in the true answer.
    """
    before, after = answers(example.scene), answers(example.truth_scene)
    right = {question: said.get(question) == answer for question, answer in after.items()}
    asked = [right[question] for question in after if before.get(question) != after[question]]
    kept = [right[question] for question in after if before.get(question) == after[question]]
    bare = ~np.concatenate([example.masks, example.truth_masks]).any(0)
    found = {f"{name} truth": value for name, value in compare(truth, image).items()}
    error = np.square(image[bare] - truth[bare], dtype=np.float64).mean()
    background = float(-10 * np.log10(error)) if error else np.inf
    return found | {
        "background": background,
        "asked": float(np.mean(asked)),
        "kept": float(np.mean(kept)) if kept else np.nan,
    }


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
