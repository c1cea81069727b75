"""The reconstruction benchmark: it resumes, it can be shared, and its summary is right."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest

import erddci
from erddci import METHODS
from erddci.experiments import (
    RECONSTRUCTION,
    reconstruction_cases,
    reconstruction_speed,
    reconstruction_summary,
    select,
    throughput,
)
from erddci.experiments.store import RowStore
from erddci.scenes.examples import held_out
from erddci.workbook import figures as record

TIMES = ["seconds_inversion", "seconds_sampling"]
CASES = reconstruction_cases(("ddim", "dual-chain", "edict"), (1, 7.5), (3,))


@pytest.fixture(scope="module")
def images():
    return held_out(3)


@pytest.fixture(scope="module")
def whole(tiny, images, tmp_path_factory):
    return RECONSTRUCTION.run(tiny, images, CASES, tmp_path_factory.mktemp("whole"), batch=1)


def test_every_method_is_inverted_as_its_paper_has_it():
    found = {(case.method, case.inverted_at) for case in reconstruction_cases(scales=(7.5,))}
    assert {("ddim", 1), ("ddim", 7.5), ("dual-chain", 1), ("dual-chain", 7.5)} <= found
    for name, method in METHODS.items():
        assert (name, 7.5 if (method.inverts == "guided") else 1) in found
    assert len(reconstruction_cases(scales=(1,))) == len(METHODS)
    with pytest.raises(ValueError, match="unknown method 'best': expected one of ddim"):
        reconstruction_cases(["best"])


def test_rows_are_tidy_and_count_what_was_done(whole):
    assert list(whole.columns) == list(RECONSTRUCTION.columns) and len(whole) == 3 * len(CASES)
    assert not whole.duplicated(["method", "guidance_scale", "inverted_at", "image"]).any()
    ddim = whole[(whole["method"] == "ddim") & (whole["inverted_at"] == 1)]
    assert set(
        zip(ddim["guidance_scale"], ddim["nfe_inversion"], ddim["nfe_sampling"], strict=True)
    ) == {
        (1, 3, 3),
        (7.5, 3, 6),
    }
    exact = whole[(whole["method"] == "dual-chain") & (whole["guidance_scale"] == 1)]
    assert (exact["latent_max"] < 1e-12).all() and (exact["psnr_vae"] > 100).all()
    assert (exact["psnr_input"] < 60).all()
    assert (whole["seconds_inversion"] > 0).all() and (exact["stored_mb"] > 0).all()


class Stopped(Exception):
    pass


def test_a_stopped_run_goes_on_where_it_was(tiny, images, tmp_path, whole):
    runs = []

    def measure(model, some, case, cache):
        if len(runs) == stop:
            raise Stopped
        runs.append((case, len(some)))
        return RECONSTRUCTION.measure(model, some, case, cache)

    counted = replace(RECONSTRUCTION, measure=measure)
    stop = 3
    with pytest.raises(Stopped):
        counted.run(tiny, images, CASES[:2], tmp_path, batch=2)
    # Both cases on the first two images before any on the third, so a stopped run is balanced.
    assert runs == [(CASES[0], 2), (CASES[1], 2), (CASES[0], 1)]
    before = {path: path.read_text() for path in tmp_path.glob("rows-*.csv")}
    assert {path.name for path in before} == {"rows-0.csv", "rows-2.csv"}
    assert len(RECONSTRUCTION.read(tmp_path)) == 5
    stop = -1
    runs.clear()
    rows = counted.run(tiny, images, CASES, tmp_path, batch=1)
    count = len(runs)
    assert count == 1 + 3 * (len(CASES) - 2)
    assert [case for case, _ in runs if case in CASES[:2]] == [CASES[1]]
    assert all(path.read_text().startswith(text) for path, text in before.items())
    assert not list(tmp_path.glob("*.partial"))
    same = ["method", "guidance_scale", "inverted_at", "image", "nfe_inversion", "nfe_sampling"]
    pd.testing.assert_frame_equal(rows[same], whole[same])
    np.testing.assert_allclose(rows["ssim_vae"], whole["ssim_vae"], rtol=1e-3)
    assert len(counted.run(tiny, images, CASES, tmp_path)) == len(rows)
    assert len(runs) == count


def test_a_kill_while_a_file_is_written_leaves_the_old_one(tiny, tmp_path, monkeypatch):
    store = RowStore(tmp_path, ("method", "image", "psnr"))
    store.add(0, [{"method": "ddim", "image": 0, "psnr": 1.23456789}])

    def killed(path, text):
        path.with_suffix(".partial").write_text(text[: len(text) // 2])
        raise Stopped

    monkeypatch.setattr("erddci.experiments.store._write", killed)
    with pytest.raises(Stopped):
        store.add(0, [{"method": "ddim", "image": 1, "psnr": 2.0}])
    assert store.read().to_dict("records") == [{"method": "ddim", "image": 0, "psnr": 1.23457}]


def test_rows_of_other_columns_are_refused(tmp_path):
    RowStore(tmp_path, ("method", "image")).add(0, [{"method": "ddim", "image": 0}])
    with pytest.raises(ValueError, match="expected columns image in .*got method,image"):
        RowStore(tmp_path, ("image",)).add(0, [{"image": 1}])


def test_committed_rows_are_whole(scenes):
    """The table is of rows that are there: nothing is measured."""
    folder = record.RESULTS / "table_reconstruction"
    profile = RECONSTRUCTION.profile("table")
    cases = RECONSTRUCTION.cases(profile.ways, profile.scales, profile.steps)
    rows = select(RECONSTRUCTION.read(folder), cases, profile.images)
    assert len(rows) == len(cases) * profile.images
    assert json.loads((folder / "settings.json").read_text())["model"] == scenes.name


def test_a_folder_of_other_rows_is_refused(tiny, images, tmp_path):
    RECONSTRUCTION.run(tiny, images[:1], CASES[:1], tmp_path)
    with pytest.raises(
        ValueError, match="other images or prompts.*go on with the same model and images"
    ):
        RECONSTRUCTION.run(tiny, images[1:], CASES[:1], tmp_path)
    # More images of the same series are welcome, and fewer.
    assert len(RECONSTRUCTION.run(tiny, images[:2], CASES[:1], tmp_path)) == 2
    assert len(RECONSTRUCTION.run(tiny, images[:1], CASES[:1], tmp_path)) == 2


def test_a_walk_that_fails_is_a_row_that_says_so(tiny, images, tmp_path, monkeypatch):
    decode = type(tiny).decode
    monkeypatch.setattr(type(tiny), "decode", lambda self, x: decode(self, x) * np.nan)
    rows = RECONSTRUCTION.run(tiny, images[:1], CASES[:1], tmp_path)
    assert rows["psnr_vae"].isna().all() and "between 0 and 1" in rows["problem"][0]
    table = reconstruction_summary(rows.assign(image=0))
    assert table["images"][0] == 0 and table["failed"][0] == 1


def test_rows_of_some_cases_on_the_first_images():
    todo = reconstruction_cases(["ddim"], (1.0, 3.0), (5,))
    rows = pd.DataFrame([asdict(each) | {"image": n} for each in todo for n in range(3)])
    found = select(rows, todo[:2], 2)
    told = found[["inverted_at", "guidance_scale", "image"]].itertuples(index=False, name=None)
    assert sorted(told) == [
        (1, 1, 0), (1, 1, 1), (1, 3, 0), (1, 3, 1),
    ]  # fmt: skip


def test_medians_and_their_intervals():
    frame = pd.DataFrame({"psnr_vae": [*range(100), np.inf], "ssim_vae": 0.5, "lpips_vae": 0.1})
    frame = frame.assign(method="ddim", guidance_scale=1.0, inverted_at=1.0, steps=10)
    row = reconstruction_summary(frame).iloc[0]
    assert row["psnr_vae"] == 50 and row["images"] == 101
    # The order statistics that hold a median with 95 %: 50.5 ± 1.96·√101/2.
    assert abs(row["psnr_vae_low"] - 40) < 4 and abs(row["psnr_vae_high"] - 60) < 4
    assert row["ssim_vae_low"] == row["ssim_vae_high"] == 0.5


def test_tables_are_written_from_one_frame(tiny, tmp_path):
    frame = pd.DataFrame(
        {"method": ["ddim", "edict"], "psnr_vae": [47.71, np.inf]}
        | {"psnr_vae_low": [46.1, np.inf], "psnr_vae_high": [48.26, np.inf]}
    )
    record.save_table(frame, tiny, "table_x", "Medians.", tmp_path)
    back = pd.read_csv(tmp_path / "table_x.csv")
    pd.testing.assert_frame_equal(back, frame)
    for kind in ("md", "tex"):
        text = (tmp_path / f"table_x.{kind}").read_text()
        assert "Medians." in text and "47.71 [46.1, 48.26]" in text and "inf [" not in text
    assert json.loads((tmp_path / "table_x.json").read_text())["model"] == tiny.name


def test_speed_counts_evaluations_of_every_order_of_calls(tiny, images):
    table = reconstruction_speed(
        tiny, images[0], steps=4, repeats=1, others=("edict", "null-text")
    )
    rows = dict(zip(table["run"], table["nfe"], strict=True))
    assert [rows[name] for name in list(rows)[:4]] == [16, 8, 5, 16]
    assert list(rows)[4] == "null-text, w = 7.5" and 4 < rows["null-text, w = 7.5"] <= 14 * 4 + 8
    assert (table["latent_max"][:3] < 1e-12).all()
    assert table["speedup"][0] == 1 and (table["seconds"] > 0).all()
    assert table["outside"].between(0, 1).all()


def test_throughput_by_batch_size_and_processes(tiny_folder):
    model = erddci.load(tiny_folder, device="cpu")
    table = throughput(model, (1, 2), (1, 2), steps=2, repeats=1)
    assert list(table["varied"]) == ["batch size"] * 2 + ["processes"] * 2
    assert list(table["value"]) == [1, 2, 1, 2] and (table["images_per_second"] > 0).all()
    for first in (0, 2):
        assert table["ideal"][first] == table["images_per_second"][first]
        assert table["ideal"][first + 1] == 2 * table["ideal"][first]


def test_two_processes_share_a_run_and_find_the_same(tiny_folder, tmp_path):
    command = ["benchmark", "reconstruction", "--model", str(tiny_folder), "--device", "cpu"]
    command += ["--methods", "ddim", "--methods", "edict", "--scenes", "3", "--batch", "1"]
    program = [sys.executable, "-m", "erddci"]
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--multi_gpu",
        "--num_processes",
        "2",
    ]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for folder, start in (("one", program), ("two", [*launch, "-m", "erddci"])):
        result = subprocess.run(
            [*start, *command, str(tmp_path / folder)],
            capture_output=True, text=True, env=environment, timeout=600,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr[-2000:]
    one, two = (RECONSTRUCTION.read(tmp_path / folder) for folder in ("one", "two"))
    assert len(list((tmp_path / "two").glob("rows-*.csv"))) == 3
    # Times differ, numbers do not.
    pd.testing.assert_frame_equal(one.drop(columns=TIMES), two.drop(columns=TIMES))
    assert json.loads((tmp_path / "two" / "settings.json").read_text())["model"]


def test_saved_tables_are_kept_for_their_own_model(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    fresh, saved = pd.DataFrame({"value": [2.0]}), pd.DataFrame({"value": [1.0]})
    assert record.cached_table(tiny, "fig", "rows", lambda: fresh) is fresh
    saved.to_csv(tmp_path / "fig_rows.csv", index=False)
    (tmp_path / "fig.json").write_text(json.dumps({"fingerprint": tiny.fingerprint}))
    pd.testing.assert_frame_equal(record.cached_table(tiny, "fig", "rows", lambda: fresh), saved)
    other = json.loads(tiny.fingerprint) | {"dtype": "float16"}
    (tmp_path / "fig.json").write_text(json.dumps({"fingerprint": json.dumps(other)}))
    assert record.cached_table(tiny, "fig", "rows", lambda: fresh) is fresh
