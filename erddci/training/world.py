"""Commands that train the embedded model of the world with named things, part by part.

Every part checkpoints in its own folder and goes on from there when it is asked again, also with
more steps; `weights.safetensors` alone is enough to go on from.  In this order: photographs, vae,
denoiser, classifier, export, evaluate.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help=__doc__, no_args_is_help=True)
Folder = Annotated[Path, typer.Option(help="where pictures and checkpoints are kept")]
SCENES = 12_000


@app.command()
def photographs(archives: Path, folder: Folder = Path("training")) -> None:
    """Take photographs and textures out of fetched archives."""
    from erddci.training.photographs import gather

    gather(archives, folder / "photographs")


@app.command()
def vae(folder: Folder = Path("training"), steps: int = 8000, scenes: int = SCENES) -> None:
    """Train the VAE on scenes, with named things and without, and on photographs."""
    from erddci.training.rendered import rendered
    from erddci.training.vae import Pictures, train_vae

    pictures = Pictures(rendered(folder, scenes)[0], folder / "photographs")
    train_vae(pictures, folder / "vae", steps)


@app.command()
def denoiser(folder: Folder = Path("training"), steps: int = 8000, scenes: int = SCENES) -> None:
    """Train UNet and text encoder, from the embedded model's, on latents of training scenes."""
    from erddci.checkpoint.hub import EMBEDDED
    from erddci.training.denoiser import RECIPE, train_denoiser
    from erddci.training.latents import latents
    from erddci.training.rendered import rendered

    pictures, regions = rendered(folder, scenes)
    x = latents(folder, pictures)
    train_denoiser(folder / "denoiser", x, regions, RECIPE(steps), shipped=EMBEDDED)


@app.command()
def classifier(folder: Folder = Path("training"), steps: int = 2000, scenes: int = SCENES) -> None:
    """Train the attribute classifier that judges prompts and edits."""
    from erddci.training.classifier import RECIPE, train_classifier
    from erddci.training.rendered import rendered

    train_classifier(folder / "classifier", rendered(folder, scenes)[0], RECIPE(steps))


@app.command()
def export(out: Path, folder: Folder = Path("training")) -> None:
    """Save what was trained as a pipeline folder in half precision."""
    from erddci.training.world_export import export as save

    save(folder, out)


@app.command()
def evaluate(model: Path, folder: Folder = Path("training"), scenes: int = 200) -> None:
    """Measure a saved model on held-out scenes and photographs; write pages and a card."""
    from erddci.training.card import write_card
    from erddci.training.evaluate import evaluate as measure
    from erddci.training.evaluate import photographs as test_photographs

    photos = test_photographs(folder / "photographs" / "held-out")
    for name, value in measure(model, photos, scenes).items():
        typer.echo(f"{name}: {value:.4g}")
    typer.echo(f"model card: {write_card(model)}")


if __name__ == "__main__":
    app()
