"""Figures of trajectories: their error, their order of steps, and their predicted noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any, cast

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from erddci.plots.looks import NEUTRAL, Look, look
from erddci.plots.style import CELL, NO_GRID, SCALES, SERIES, STYLE, image_row

if TYPE_CHECKING:
    import plotly.graph_objects as go


def error_accumulation(
    frame: pd.DataFrame,
    floor: float,
    strips: Mapping[float, np.ndarray],
    nodes: Sequence[int],
) -> Figure:
    """Figure 1: the latent error of reconstruction by node, the image's PSNR, and strips.

    Args:
        frame: one row an image, guidance scale, way of inversion and node.
        floor: PSNR in dB of the VAE round trip against the input images.
        strips: images by guidance scale, the image that is predicted at some nodes.
        nodes: which nodes these are.
    """
    scales = sorted(frame["guidance_scale"].unique())
    colours = dict(zip(scales, cycle(SCALES), strict=False))
    below = (CELL + 0.05) * len(strips) + 0.2
    with mpl.rc_context(STYLE):
        figure = plt.figure(figsize=(8.2, 3.1 + below))
        top, bottom = cast(Any, figure.subfigures(2, 1, height_ratios=(3.1, below)))
        left, right = top.subplots(1, 2, width_ratios=(3, 2))
        _error_by_node(left, frame, colours)
        _psnr_by_scale(right, frame, floor)
        axes = bottom.subplots(len(strips), len(nodes), squeeze=False)
        for line, (w, images) in zip(axes, strips.items(), strict=True):
            image_row(line, list(images), f"w = {w:g}")
        for ax, node in zip(axes[0], nodes, strict=True):
            ax.set_title(f"i = {node}", fontsize=8, loc="center")
    return figure


# How inversions are named, by their value in the column "inverted".
INVERTED = {"unguided": "inverted at w = 1", "same scale": "inverted at w"}


def _inversions(frame: pd.DataFrame) -> list[tuple[str, Look]]:
    """The values of the column "inverted", and how each is drawn."""
    values = frame["inverted"].unique()
    styles = zip(cycle(("-", "--", "-.", ":")), cycle("os^D"), strict=False)
    return [
        (value, Look(str(INVERTED.get(value, value)), "#777777", marker, dashes))
        for value, (dashes, marker) in zip(values, styles, strict=False)
    ]


def _error_by_node(ax: Axes, frame: pd.DataFrame, colours: Mapping[float, str]) -> None:
    # At the last node, noise, there is no error yet, and at w = 1 both inversions are one.
    shown = frame[frame["node"] < frame["node"].max()]
    shown = shown[(shown["guidance_scale"] != 1) | (shown["inverted"] == "unguided")]
    for inverted, each in _inversions(frame):
        for w, group in shown[shown["inverted"] == inverted].groupby("guidance_scale"):
            error = group.groupby("node")["latent_rms"].quantile([0.25, 0.5, 0.75]).unstack()
            label = f"w = {w:g}" if w == 1 else f"w = {w:g}, {each.label}"
            ax.plot(error.index, error[0.5], each.dashes, color=colours[w], label=label)
            if inverted == "unguided":
                ax.fill_between(
                    error.index, error[0.25], error[0.75], color=colours[w], alpha=0.15
                )
    ax.set(yscale="log", xlabel="node i in sampling (N is noise, 0 the image)")
    ax.set(ylabel="RMS latent error", title="DDIM's error builds up in reconstruction")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.invert_xaxis()
    ax.legend()


def _psnr_by_scale(ax: Axes, frame: pd.DataFrame, floor: float) -> None:
    ends = frame[frame["node"] == 0]
    for inverted, each in _inversions(frame):
        values = ends[ends["inverted"] == inverted].groupby("guidance_scale")["psnr_input"]
        ax.plot(values.median(), label=each.label, markersize=4, **each.line)
    ax.axhline(floor, color="black", linewidth=1, linestyle=":")
    right = frame["guidance_scale"].max()
    offset = {"xytext": (0, -11), "textcoords": "offset points", "ha": "right"}
    ax.annotate("VAE round trip: the floor", (right, floor), **offset)
    ax.set(xlabel="guidance scale w", ylabel="PSNR to the input image (dB)")
    ax.set_xticks(sorted(frame["guidance_scale"].unique()))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.set_title("… and guidance amplifies it")
    ax.legend(loc="lower left")


HEIGHT = {"z": 1.0, "x": 0.0}
CHAINS = {"z": "original chain z", "x": "auxiliary chain x"}
CHAIN_COLOURS = {"z": "#777777", "x": SERIES[1]}
SAMPLING = SERIES[4]


def dual_chain(order: pd.DataFrame) -> Figure:
    """Figure 2: the two chains, and at which latent and timestep each step's noise is predicted.

    Args:
        order: one row an event: "ask" for a prediction, "move" for a step along one.
    """
    asks = order[order["event"] == "ask"].set_index("ask")
    moves = order[order["event"] == "move"]
    last = int(moves["end"].max())
    with mpl.rc_context(NO_GRID):
        figure, ax = plt.subplots(figsize=(8.2, 3.4))
        for move in moves.itertuples():
            _draw_step(ax, move, asks.loc[move.ask])
        for chain in HEIGHT:
            _draw_nodes(ax, chain, last)
        ax.plot([0, 0], [0.2, 0.8], color="black", lw=0.9)
        ax.text(0.05, 0.5, "$x_0 = z_0$", va="center", fontsize=9)
        ax.annotate(
            "sampling: the same noises, from $x_N$ back to $x_0$",
            (0, -0.5), (last, -0.5), ha="right", va="center", color=SAMPLING,
            arrowprops={"arrowstyle": "-|>", "color": SAMPLING, "lw": 1.6},
        )  # fmt: skip
        ax.set(xlim=(-1.65, last + 0.35), ylim=(-0.7, 1.35))
        ax.set_title(f"Inversion, from the image (left) to noise (right), N = {last}")
        ax.axis("off")
    return figure


def _draw_step(ax: Axes, move: Any, ask: pd.Series) -> None:  # noqa: ANN401 (a row as a tuple)
    """An arrow from node to node, the noise it moves along, and where that was predicted."""
    colour, y = CHAIN_COLOURS[move.chain], HEIGHT[move.chain]
    arrow = {"arrowstyle": "-|>", "color": colour, "lw": 1.8}
    arrow |= {"shrinkA": 15, "shrinkB": 15, "mutation_scale": 14}
    ax.annotate("", (move.end, y), (move.start, y), arrowprops=arrow)
    middle = (move.start + move.end) / 2
    noise = f"$\\varepsilon({ask.chain}_{ask.start}, t_{ask.end})$"
    above = 0.13 if move.chain == "z" else -0.19
    ax.text(middle, y + above, noise, ha="center", color=colour, fontsize=10)
    if move.chain != ask.chain:
        link = {"arrowstyle": "->", "color": colour, "lw": 0.9, "ls": ":"}
        link |= {"shrinkA": 14, "shrinkB": 5, "connectionstyle": "arc3,rad=-0.12"}
        ax.annotate("", (middle, y - 0.02), (ask.start, HEIGHT[ask.chain]), arrowprops=link)


def _draw_nodes(ax: Axes, chain: str, last: int) -> None:
    y, colour = HEIGHT[chain], CHAIN_COLOURS[chain]
    circle = {"boxstyle": "circle,pad=0.35", "fc": "white", "ec": colour}
    for node in range(last + 1):
        name = f"${chain}_{node}$"
        ax.text(node, y, name, ha="center", va="center", fontsize=12, zorder=3, bbox=circle)
    ax.text(-0.45, y, CHAINS[chain], ha="right", va="center", color=colour)


def noise_trajectories(frames: Mapping[float, pd.DataFrame]) -> Figure:
    """Figure 3: predicted noise along trajectories, by guidance scale, in its principal plane.

    Args:
        frames: by guidance scale, one row a trajectory and step.
    """
    with mpl.rc_context(STYLE):
        size = (4.3 * len(frames), 3.9)
        figure, axes = plt.subplots(1, len(frames), figsize=size, squeeze=False)
        for ax, (w, frame) in zip(axes[0], frames.items(), strict=True):
            colours = _trajectory_colours(frame)
            sizes = np.geomspace(46, 8, len(colours))
            for (name, colour), size in zip(colours.items(), sizes, strict=True):
                _draw_noises(ax, frame[frame["trajectory"] == name], colour, size)
            shares = frame.attrs["explained"]
            ax.set_title(f"sampling at w = {w:g}")
            ax.set_xlabel(f"first component of ε ({shares[0]:.0%} of variance)")
            ax.set_ylabel(f"second component ({shares[1]:.0%})")
        axes[0, 0].legend(title="dark: t = T,  light: t = 0", title_fontsize=8)
    return figure


def _trajectory_colours(frame: pd.DataFrame) -> dict[str, str]:
    """Colours by trajectory: that of the method that its name begins with, if it is free."""
    found: dict[str, str] = {}
    for name in reversed(frame["trajectory"].unique()):
        colours = [look(name.rsplit(" ", end)[0]).color for end in (0, 1)]
        free = [each for each in colours if each not in (NEUTRAL, *found.values())]
        found[name] = free[0] if free else NEUTRAL
    return dict(reversed(found.items()))


def _draw_noises(ax: Axes, frame: pd.DataFrame, colour: str, size: float) -> None:
    frame = frame.sort_values("t", ascending=False)
    ax.plot(frame["pc1"], frame["pc2"], color=colour, lw=0.6, alpha=0.6, zorder=1)
    ax.scatter(frame["pc1"], frame["pc2"], c=_lighten(colour, len(frame)), s=size, zorder=2)
    ax.scatter([], [], color=colour, s=size, label=frame["trajectory"].iloc[0])


def noise_trajectories_3d(frame: pd.DataFrame) -> go.Figure:
    """The trajectories of Figure 3 in three principal components, to turn and zoom."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for name, colour in _trajectory_colours(frame).items():
        part = frame[frame["trajectory"] == name].sort_values("t", ascending=False)
        shades = [to_hex(shade) for shade in _lighten(colour, len(part))]
        figure.add_scatter3d(
            x=part["pc1"], y=part["pc2"], z=part["pc3"], name=name, mode="lines+markers",
            marker={"size": 4, "color": shades, "line": {"color": colour, "width": 1}},
            line={"color": colour, "width": 2},
            customdata=part["t"], hovertemplate="t = %{customdata}",
        )  # fmt: skip
    scene: dict[str, Any] = {
        f"{axis}axis": {"title": {"text": f"pc{n}"}} for n, axis in enumerate("xyz", 1)
    }
    # Far enough for the whole box to fit.
    scene["camera"] = {"eye": {"x": 1.6, "y": 1.6, "z": 1.1}}
    figure.update_layout(
        scene=scene,
        margin={"l": 0, "r": 0, "t": 0, "b": 0},
        legend={"orientation": "h", "y": 1, "yanchor": "top"},
        height=460,
    )
    return figure


def _lighten(colour: str, count: int) -> list[Any]:
    """Shades from a colour towards white."""
    mix = np.linspace(0, 0.75, count)[:, None]
    return [tuple(shade) for shade in (1 - mix) * np.array(to_rgb(colour)) + mix]


def plane(trajectories: Mapping[str, np.ndarray], data: np.ndarray, title: str = "") -> Figure:
    """Trajectories of toy points in the plane, each [N + 1, points, 2], over the data [M, 2]."""
    with mpl.rc_context(STYLE):
        figure, ax = plt.subplots(figsize=(4.6, 4.2))
        ax.scatter(*data.T, s=3, color="#DDDDDD", label="data")
        for (name, path), colour in zip(trajectories.items(), cycle(SERIES), strict=False):
            for number, points in enumerate(np.moveaxis(path, 1, 0)):
                ax.plot(*points.T, color=colour, lw=1, label=None if number else name)
            ax.scatter(*path[0].T, s=14, color=colour, zorder=3)
        ax.set(xlabel="first coordinate", ylabel="second coordinate", title=title, aspect="equal")
        ax.legend(loc="upper left")
    return figure


def step_size(frame: pd.DataFrame) -> Figure:
    """Error against the number of steps for every method of a frame, log-log."""
    with mpl.rc_context(STYLE):
        figure, ax = plt.subplots(figsize=(4.8, 3.3))
        for method, group in frame.groupby("method"):
            each = look(str(method))
            ax.plot(group["steps"], group["latent_rms"], label=each.label, **each.line)
        steps = np.array(sorted(frame["steps"].unique()))
        worst = frame.loc[frame["steps"] == steps[-1], "latent_rms"].max()
        ax.plot(steps, 2 * worst * steps[-1] / steps, ":", color="black", label="slope of 1/N")
        ax.set(xscale="log", yscale="log")
        ax.set(xlabel="steps N", ylabel="RMS latent error at the image")
        ax.legend()
    return figure
