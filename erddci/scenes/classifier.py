"""The attribute classifier: a small network that names what an image of a scene shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from erddci.scenes.scene import COLOURS, FLOORS, MATERIALS, SHAPES, SIZES, Scene

WEIGHTS = Path(__file__).parent / "weights" / "classifier.safetensors"

# What is asked of an image, and the possible answers.  The things are counted from the left; with
# one thing alone the questions about the right one have no answer.
OBJECT_QUESTIONS = {
    "size": tuple(SIZES),
    "colour": tuple(COLOURS),
    "material": MATERIALS,
    "shape": SHAPES,
}
QUESTIONS: dict[str, tuple[str, ...]] = {
    "count": ("1", "2"),
    "floor": tuple(FLOORS),
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
        truth |= {f"{side} {name}": getattr(thing, name) for name in OBJECT_QUESTIONS}
    return truth


class AttributeClassifier(nn.Module):
    """A convolutional network with one answer head a question; 128 px images."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        widths = (3, width, 2 * width, 4 * width, 4 * width)
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
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 4 * width, 256), nn.SiLU())
        self.heads = nn.Linear(256, sum(map(len, QUESTIONS.values())))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Scores of the answers to every question, for images [B, 3, 128, 128] in [-1, 1]."""
        scores = self.heads(self.body(x)).split([len(a) for a in QUESTIONS.values()], dim=1)
        return dict(zip(QUESTIONS, scores, strict=True))

    @torch.no_grad()
    def classify(self, images: np.ndarray) -> list[dict[str, str]]:
        """Answer every question that applies, for images [B, 128, 128, 3] in [0, 1] or uint8.

        Raises:
            ValueError: images of another shape.
        """
        if images.shape[1:] != (128, 128, 3):
            raise ValueError(f"expected images [B, 128, 128, 3], got {images.shape}")
        if images.dtype == np.uint8:
            images = images / np.float32(255)
        x = torch.from_numpy(images).float().permute(0, 3, 1, 2) * 2 - 1
        scores = {question: score.argmax(1) for question, score in self(x).items()}
        said = [
            {q: values[scores[q][row]] for q, values in QUESTIONS.items()}
            for row in range(len(images))
        ]
        return [
            {q: a for q, a in one.items() if one["count"] == "2" or not q.startswith("right")}
            for one in said
        ]


def loss(classifier: nn.Module, x: Tensor, targets: dict[str, Tensor]) -> Tensor:
    """Cross-entropy over the questions; targets [B] hold −100 where there is no answer."""
    scores = classifier(x)
    return sum(
        (F.cross_entropy(scores[q].float(), targets[q], ignore_index=-100) for q in QUESTIONS),
        torch.zeros(()),
    )


def targets(scenes: list[Scene]) -> dict[str, Tensor]:
    """The true answers of scenes as class indices [B] a question, −100 where there is none."""
    truths = [attributes(scene) for scene in scenes]
    return {
        q: torch.tensor([values.index(t[q]) if q in t else -100 for t in truths])
        for q, values in QUESTIONS.items()
    }


def load_classifier(path: Path = WEIGHTS) -> AttributeClassifier:
    """Load the trained reader that comes with the package."""
    classifier = AttributeClassifier()
    classifier.load_state_dict(load_file(path))
    return classifier.eval()
