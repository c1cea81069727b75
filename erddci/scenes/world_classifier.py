"""The attribute classifier of the world with named things: what an image shows, side by side.

It looks for the thing on the left and the thing on the right with one learned glance each, and
asks the same questions of both, so that a thing is learned once for either side.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from erddci.scenes.scene import COLOURS, FLOORS, MATERIALS, SHAPES, SIZES, Scene, SceneObject, noun
from erddci.scenes.things import NAMES, NamedObject

# What is asked of a scene and of a thing, and the possible answers.  A thing with a name has
# neither colour nor material; of one thing alone only the questions about the left have an answer.
SCENE_QUESTIONS = {"count": ("1", "2"), "floor": tuple(FLOORS)}
OBJECT_QUESTIONS = {
    "noun": (*SHAPES, *NAMES),
    "size": tuple(SIZES),
    "colour": tuple(COLOURS),
    "material": MATERIALS,
}
QUESTIONS: dict[str, tuple[str, ...]] = {
    **SCENE_QUESTIONS,
    **{
        f"{side} {name}": values
        for side in ("left", "right")
        for name, values in OBJECT_QUESTIONS.items()
    },
}


def attributes(scene: Scene) -> dict[str, str]:
    """The true answer to every question that has one."""
    truth = {"count": str(len(scene.objects)), "floor": scene.floor}
    for side, thing in zip(("left", "right"), scene.objects, strict=False):
        truth |= {f"{side} {name}": value for name, value in _known(thing).items()}
    return truth


def _known(thing: SceneObject | NamedObject) -> dict[str, str]:
    known = {"noun": noun(thing), "size": thing.size}
    if isinstance(thing, SceneObject):
        known |= {"colour": thing.colour, "material": thing.material}
    return known


class WorldClassifier(nn.Module):
    """A convolutional network with two glances over its last map; images of 128 px."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        widths = (3, width, 2 * width, 4 * width, 6 * width)
        layers: list[nn.Module] = []
        for wide_in, wide_out in zip(widths, widths[1:], strict=False):
            layers += [
                nn.Conv2d(wide_in, wide_out, 3, stride=2, padding=1),
                nn.GroupNorm(8, wide_out),
                nn.SiLU(),
                nn.Conv2d(wide_out, wide_out, 3, padding=1),
                nn.GroupNorm(8, wide_out),
                nn.SiLU(),
            ]
        self.body = nn.Sequential(*layers)
        deep = widths[-1]
        self.look = nn.Conv2d(deep, 2, 1)
        self.place = nn.Parameter(torch.linspace(4, -4, 8)[None, None].repeat(2, 8, 1))
        self.place.data[1] *= -1  # the left glance prefers the left, the right one the right
        self.scene = nn.Linear(deep, sum(map(len, SCENE_QUESTIONS.values())))
        self.thing = nn.Sequential(
            nn.Linear(deep, 2 * deep),
            nn.SiLU(),
            nn.Linear(2 * deep, sum(map(len, OBJECT_QUESTIONS.values()))),
        )

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Scores of the answers to every question, for images [B, 3, 128, 128] in [-1, 1]."""
        found = self.body(x)
        glances = (self.look(found) + self.place).flatten(2).softmax(2)  # [B, 2, 64]
        seen = self.thing(glances @ found.flatten(2).mT)  # [B, 2, answers]
        whole = self.scene(found.mean((2, 3)))
        scores = dict(zip(SCENE_QUESTIONS, _split(whole, SCENE_QUESTIONS), strict=True))
        for number, side in enumerate(("left", "right")):
            for name, score in zip(
                OBJECT_QUESTIONS, _split(seen[:, number], OBJECT_QUESTIONS), strict=True
            ):
                scores[f"{side} {name}"] = score
        return scores

    @torch.no_grad()
    def read(self, images: np.ndarray) -> list[dict[str, str]]:
        """Answer every question that applies, for images [B, 128, 128, 3] in [0, 1] or uint8.

        Raises:
            ValueError: images of another shape.
        """
        if images.shape[1:] != (128, 128, 3):
            raise ValueError(f"expected images [B, 128, 128, 3], got {images.shape}")
        if images.dtype == np.uint8:
            images = images / np.float32(255)
        x = torch.from_numpy(images).float().permute(0, 3, 1, 2) * 2 - 1
        scores = {q: score.argmax(1) for q, score in self(x).items()}
        return [
            _applying({q: values[scores[q][row]] for q, values in QUESTIONS.items()})
            for row in range(len(images))
        ]


def _split(scores: Tensor, questions: dict[str, tuple[str, ...]]) -> tuple[Tensor, ...]:
    return scores.split([len(values) for values in questions.values()], dim=-1)


def _applying(said: dict[str, str]) -> dict[str, str]:
    """The answers to questions that have one, going by what was said of count and nouns."""
    sides = ("left", "right") if said["count"] == "2" else ("left",)
    asked = [*SCENE_QUESTIONS]
    for side in sides:
        shape = said[f"{side} noun"] in SHAPES
        asked += [f"{side} {q}" for q in (OBJECT_QUESTIONS if shape else ("noun", "size"))]
    return {question: said[question] for question in asked}


def targets(scenes: list[Scene]) -> dict[str, Tensor]:
    """The true answers of scenes as class indices [B] a question, −100 where there is none."""
    truths = [attributes(scene) for scene in scenes]
    return {
        q: torch.tensor([values.index(t[q]) if q in t else -100 for t in truths])
        for q, values in QUESTIONS.items()
    }


def loss(classifier: nn.Module, x: Tensor, wanted: dict[str, Tensor]) -> Tensor:
    """Cross-entropy over the questions; `wanted` [B] holds −100 where there is no answer."""
    scores = classifier(x)
    parts = []
    for question, score in scores.items():
        asked = wanted[question] != -100
        if asked.any():
            parts.append(F.cross_entropy(score[asked].float(), wanted[question][asked]))
    return torch.stack(parts).sum()


def load_classifier(path: Path) -> WorldClassifier:
    """Load a trained classifier."""
    classifier = WorldClassifier()
    classifier.load_state_dict(load_file(path))
    return classifier.eval()
