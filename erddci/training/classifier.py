"""Train the attribute classifier of the world with named things."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from erddci.scenes.scene import TRAIN_SEEDS, sample_named_scene
from erddci.scenes.world_classifier import WorldClassifier, loss, targets
from erddci.training.loop import Recipe, train
from erddci.training.train import as_batch

RECIPE = partial(Recipe, learning_rate=1e-3, decay=0.99)
SHIFT = 6  # pixels that pictures are moved by at most, for more places than were rendered


def train_classifier(folder: Path, pictures: np.ndarray, recipe: Recipe) -> WorldClassifier:
    """Train on renders of the training scenes [N, 128, 128, 3], moved, softened and noisy.

    They are softened as a VAE softens them.
    """
    truth = targets([sample_named_scene(seed) for seed in TRAIN_SEEDS[: len(pictures)]])

    def step_loss(classifier: WorldClassifier, step: int) -> Tensor:
        generator = torch.Generator().manual_seed(step)
        index = torch.randint(len(pictures), (48,), generator=generator)
        x = as_batch(pictures[index.numpy()])
        x = F.pad(x, (SHIFT,) * 4, mode="replicate")
        row, column = torch.randint(2 * SHIFT + 1, (2,), generator=generator).tolist()
        x = x[..., row : row + 128, column : column + 128]
        soft = F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
        blur = torch.rand(48, 1, 1, 1, generator=generator) * 0.8
        x = x.lerp(soft, blur) + 0.03 * torch.randn(x.shape, generator=generator)
        return loss(classifier, x, {q: y[index] for q, y in truth.items()})

    return train(WorldClassifier(), step_loss, folder, recipe)
