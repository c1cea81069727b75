"""The command line, run as a user would, on the tiny model."""

import json
import sys

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import erddci
from erddci.cli import app


@pytest.fixture
def run():
    def invoke(*words):
        return CliRunner().invoke(app, [str(word) for word in words])

    return invoke


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "image.png"
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_reconstruct_prints_measures_and_saves_the_image(run, image, tiny_folder, tmp_path):
    out = tmp_path / "new" / "back.png"
    result = run(
        "reconstruct", image, "--model", tiny_folder, "--steps", 5, "--out", out, "--prompt",
        "a red cube on a grey floor",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    printed = dict(line.rsplit(maxsplit=1) for line in result.output.splitlines()[:-1])
    assert float(printed["latent_max"]) < 1e-12
    assert (float(printed["nfe_inversion"]), float(printed["nfe_sampling"])) == (10, 0)
    assert Image.open(out).size == (16, 16)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["missing.png"], "no image at missing.png"),
        (["{image}", "--method", "magic"], "unknown method 'magic': expected one of ddim"),
        (["{image}", "--steps", "0"], "expected between 1 and 1000 steps, got 0"),
        (["{image}", "--prompt", "a purple dog"], "does not know all words"),
        (["{image}", "--model", "nonsense"], "no model 'nonsense'"),
    ],
)
def test_mistakes_are_one_line_and_exit_status_1(run, image, tiny_folder, words, expected):
    words = [word.format(image=image) for word in words]
    result = run(
        "reconstruct", *(["--model", tiny_folder] if "--model" not in words else []), *words
    )
    assert result.exit_code == 1
    assert result.output.startswith("error: ")
    assert expected in result.output
    assert "Traceback" not in result.output


def test_edit_prints_measures_and_saves_the_image(run, image, tiny_folder, tmp_path):
    out = tmp_path / "new" / "edit.png"
    result = run(
        "edit", image, "--model", tiny_folder, "--steps", 5, "--out", out,
        "--source", "a red cube", "--target", "a blue cube", "--blend",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    printed = dict(line.rsplit(maxsplit=1) for line in result.output.splitlines()[:-1])
    assert float(printed["psnr_vae"]) > 100 > float(printed["psnr_input"])
    assert (float(printed["nfe_inversion"]), float(printed["nfe_sampling"])) == (12, 12)
    assert Image.open(out).size == (16, 16)


def test_edit_without_control_measures_the_way_back(run, image, tiny_folder):
    """The source is not walked beside such an edit, and must not be taken as unchanged."""
    words = ["--method", "ddim", "--control", "none", "--constant", "--steps", 2]
    result = run("edit", image, "--model", tiny_folder, "--target", "a cube", *words)
    assert result.exit_code == 0, result.output
    printed = dict(line.rsplit(maxsplit=1) for line in result.output.splitlines())
    assert float(printed["psnr_vae"]) < 100
    assert (float(printed["nfe_inversion"]), float(printed["nfe_sampling"])) == (2, 4)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["missing.png", "--target", "a cube"], "no image at missing.png"),
        (["{broken}", "--target", "a cube"], "is not an image that can be read"),
        (["{image}", "--target", "a purple dog"], "does not know all words"),
        (["{image}", "--target", "a cube", "--method", "magic"], "unknown method 'magic'"),
        (["{image}", "--target", "a cube", "--control", "magic"], "unknown control 'magic'"),
        (["{image}", "--target", "a cube", "--strength", "2"], "expected strength in (0, 1]"),
        (["{image}", "--target", "", "--blend"], "expected prompts that differ"),
    ],
)
def test_mistakes_in_an_edit_are_one_line(run, image, tiny_folder, tmp_path, words, expected):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    words = [word.format(image=image, broken=broken) for word in words]
    result = run("edit", "--model", tiny_folder, "--steps", 2, *words)
    assert result.exit_code == 1
    *said, last = result.output.splitlines()
    assert last.startswith("error: ") and expected in last
    assert all(line.startswith("warning: ") for line in said)


def test_figures_write_image_data_and_manifest(run, tiny_folder, tmp_path):
    result = run("figures", "fig02", "--model", tiny_folder, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    name = "fig02_dual_chain"
    files = {path.name for path in tmp_path.iterdir() if path.stem.startswith("fig")}
    assert files == {f"{name}{end}" for end in (".png", ".pdf", ".json", "_order.csv")}
    manifest = json.loads((tmp_path / f"{name}.json").read_text())
    assert manifest["model"].startswith(str(tiny_folder))
    assert manifest["tables"] == [f"{name}_order.csv"]


def test_unknown_figure_and_notebook_list_the_known_ones(run):
    assert "fig01_error_accumulation" in run("figures", "fig99").output
    assert "00_start_here" in run("notebooks", "99").output


def test_doctor_prints_each_line_when_it_is_known(run, monkeypatch):
    def report(model, device):
        yield f"{model} on {device}"
        raise RuntimeError("stopped")

    monkeypatch.setattr(erddci.workbook.doctor, "report", report)
    result = run("doctor")
    assert result.output == "scenes on auto\n" and str(result.exception) == "stopped"


def test_a_missing_package_is_one_line_and_a_missing_module_of_ours_a_bug(run, monkeypatch):
    monkeypatch.delattr(erddci.workbook, "notebooks")
    monkeypatch.delitem(sys.modules, "erddci.workbook.notebooks")
    monkeypatch.setitem(sys.modules, "papermill", None)
    result = run("notebooks")
    assert result.exit_code == 1 and len(result.output.splitlines()) == 1
    assert result.output.startswith("error: import of papermill halted")
    assert "pip install 'erddci[notebooks]'" in result.output
    monkeypatch.setitem(sys.modules, "erddci.workbook.notebooks", None)
    assert isinstance(run("notebooks").exception, ModuleNotFoundError)


def test_doctor_reports_versions_machine_and_a_working_model(run):
    output = run("doctor").output
    for word in ("torch", "ipywidgets", "memory", "accelerator", "hub", "scenes@"):
        assert word in output
    error = float(output.rsplit(maxsplit=1)[1])
    assert error < 1e-10


def test_doctor_says_what_is_wrong_with_a_model(run):
    assert "no model 'nonsense'" in run("doctor", "--model", "nonsense").output


def test_publishing_before_training_says_what_to_run(run, tmp_path):
    result = run("train", "export", "--folder", tmp_path)
    assert result.exit_code == 1
    assert "erddci train" in result.output


def test_warnings_are_one_line_each_without_source(run, tiny_folder, tmp_path):
    path = tmp_path / "wide.png"
    Image.new("RGB", (40, 20)).save(path)
    result = run("reconstruct", path, "--model", tiny_folder, "--steps", 1)
    said = [line for line in result.output.splitlines() if line.startswith("warning: ")]
    assert len(said) == len(set(said)) == 2 and result.exit_code == 0
    assert "cropped" in said[0] and "1 steps end at t = 1" in said[1]
    assert ".py" not in result.output


def test_an_image_that_cannot_be_saved_is_one_line(run, image, tiny_folder, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    for out in (blocked / "back.png", tmp_path / "back.unknown"):
        result = run("reconstruct", image, "--model", tiny_folder, "--steps", 5, "--out", out)
        assert result.exit_code == 1 and result.output.splitlines()[-1].startswith("error: ")
    assert {path.name for path in tmp_path.iterdir()} == {"file", "image.png"}


def test_methods_are_listed(run):
    result = run("methods")
    assert [line.split()[0] for line in result.output.splitlines()] == list(erddci.METHODS)
