"""Rows of the accuracy table, on a network without training and two tiny clips."""
from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import accuracy
import cv2
import onnx
import pytest
import torch
from accuracy import (
    DEPLOYMENTS,
    TRACKERS,
    Row,
    header,
    line,
    main,
    measure,
    tanh_passes,
    winograd_everywhere,
)
from click.testing import CliRunner
from dataset import open_dataset
from untrained import build_untrained

from stmask_deploy.bundle import read_description
from stmask_deploy.config import Calibration
from stmask_deploy.export.exporter import ExportOptions
from stmask_deploy.models.checkpoint import CONFIG_KEY, load_checkpoint
from stmask_deploy.runtime import openvino_winograd, winograd
from stmask_deploy.runtime.frame_tracker import FrameTracker
from stmask_deploy.runtime.options import RunOptions
from stmask_deploy.synthetic.splits import SPLITS
from stmask_deploy.synthetic.writer import write_split
from stmask_deploy.training.recipe import read_recipe


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synth") / "val"
    write_split(SPLITS["val"], folder, num_clips=2, num_frames=3, size=(64, 96))
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, labelled: Path) -> Path:
    truth, frames = open_dataset(labelled)
    names = tuple(category.name for category in truth.categories)
    # Without calibration: its offsets are unruly in a network without training, and float errors grow with them.
    config = dataclasses.replace(read_recipe("demo").config(names), input_size=(64, 96),
                                 class_calibration=Calibration.NONE)
    picture = cv2.resize(cv2.imread(str(frames / truth.videos[0].file_names[0])), (96, 64))
    path = tmp_path_factory.mktemp("checkpoint") / "untrained.pth"
    model = build_untrained(config, [picture], candidate_share=0.02)
    torch.save({"state_dict": model.state_dict(), CONFIG_KEY: config.to_dict()}, path)
    return path


@pytest.fixture(scope="module")
def transformed() -> list[tuple[int, ...]]:
    """Shapes of the kernels that were transformed for `table`."""
    return []


@pytest.fixture(scope="module")
def table(checkpoint: Path, labelled: Path, transformed: list[tuple[int, ...]],
          tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Scores of four rows by name, as the script writes them."""
    out = tmp_path_factory.mktemp("table") / "accuracy.json"
    names = ["PyTorch f32", "ONNX Runtime f32", "OpenVINO f32", "OpenVINO f32, Winograd"]
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(openvino_winograd, "transformed",
                            lambda weight: [transformed.append(weight.shape), winograd.transformed(weight)][1])
        done = CliRunner().invoke(main, [str(checkpoint), "--data", str(labelled), "--json", str(out),
                                         *(word for name in names for word in ("--only", name))])
    assert done.exit_code == 0, done.output
    assert "val: AP" in done.output and all(f"| {name} | " in done.output for name in names)
    rows = json.loads(out.read_text())["rows"]
    assert [row["row"] for row in rows] == names
    return {row["row"]: row["scores"]["val"] for row in rows}


@pytest.mark.slow
def test_rows_that_compute_the_same_score_the_same(table: dict[str, dict[str, Any]],
                                                   transformed: list[tuple[int, ...]]) -> None:
    first, *others = table.values()
    assert first["videos"] == 2 and first["results"] > 0
    for scores in others:
        assert scores["results"] == first["results"]
        assert scores["ap"] == pytest.approx(first["ap"], abs=0.05)
    assert len(transformed) > 15  # of three graphs: too few channels for any but the last row


@pytest.mark.slow
def test_f16_is_imitated_by_the_graphs_of_a_bundle(table: dict[str, dict[str, Any]], checkpoint: Path, labelled: Path,
                                                   tmp_path: Path) -> None:
    [row] = [row for row in DEPLOYMENTS if row.is_rounded]
    scores = measure(row, load_checkpoint(checkpoint), {"val": open_dataset(labelled)}, tmp_path)["scores"]["val"]
    assert scores["videos"] == 2 and scores["results"] > 0
    [folder] = [path for path in tmp_path.iterdir() if path.is_dir()]
    for role in read_description(folder).roles:
        nodes = onnx.load(folder / f"{role}.onnx").graph.node
        assert any(name.endswith("_exact") for node in nodes for name in node.output)
    assert scores["ap"] == pytest.approx(table["ONNX Runtime f32"]["ap"], abs=5)


def test_rows_and_folders_that_cannot_be_are_named(checkpoint: Path, labelled: Path) -> None:
    done = CliRunner().invoke(main, [str(checkpoint), "--data", str(labelled), "--only", "PyTorch"])
    assert done.exit_code == 2 and "no rows PyTorch; there are PyTorch f32, ONNX Runtime f32" in done.output
    done = CliRunner().invoke(main, [str(checkpoint), "--data", str(labelled), "--data", str(labelled)])
    assert done.exit_code == 2 and "the same name" in done.output


def test_a_row_that_cannot_run_says_why(checkpoint: Path, labelled: Path, tmp_path: Path) -> None:
    row = Row("impossible", options={"tracker": "paper", "new_object_score": 1.0})
    (tmp_path / "native_f32").mkdir()  # nothing is exported for it
    result = measure(row, load_checkpoint(checkpoint), {"val": open_dataset(labelled)}, tmp_path)
    assert "new_object_score is not read by the paper tracker" in result["not_available"]
    assert "not available" in line(result, ["val"])


@pytest.mark.parametrize("row", [row for row in DEPLOYMENTS if row.precision == "int8"], ids=lambda row: row.name)
def test_int8_is_left_out_without_a_video_to_calibrate_with(row: Row, checkpoint: Path, labelled: Path,
                                                            tmp_path: Path) -> None:
    result = measure(row, load_checkpoint(checkpoint), {"val": open_dataset(labelled)}, tmp_path)
    assert result == {"row": row.name, "not_available": "int8 needs --calibration VIDEO"}


def test_rows_run_as_they_say(checkpoint: Path, labelled: Path, tmp_path: Path,
                              monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[tuple[bool, bool]] = []

    def look(*_: object) -> SimpleNamespace:
        found.append((winograd.is_worthwhile(1, 1, (1, 1, 1), "f32"), FrameTracker.tanh_passes == 1))
        return SimpleNamespace(device="a device", options=SimpleNamespace(tracking="a tracker"))

    monkeypatch.setattr(accuracy, "open_model", look)
    monkeypatch.setattr(accuracy, "track_dataset", look)  # a graph may be opened when it is first needed
    monkeypatch.setattr(accuracy, "evaluate", lambda *_: SimpleNamespace(to_dict=dict))
    for row in (*DEPLOYMENTS, *TRACKERS):
        found.clear()
        measure(row, load_checkpoint(checkpoint), {"val": open_dataset(labelled)}, tmp_path)
        assert found == [(row.winograd, row.plain_masks)] * 2


@pytest.mark.parametrize(("row", "weights"), [
    (Row("a", precision="int8"), None), (Row("b", "openvino", "int8", weights="f16"), "f16")])
def test_an_int8_bundle_has_what_its_backend_reads(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                   row: Row, weights: str | None) -> None:
    asked: list[ExportOptions] = []
    monkeypatch.setattr(accuracy, "export_checkpoint", lambda _, folder, options: [
        asked.append(options), folder.mkdir()])
    for _ in range(2):  # exported once
        accuracy.int8_bundle(row, load_checkpoint(checkpoint), tmp_path, Path("clip.mp4"))
    [options] = asked
    assert options.openvino_weights == weights and options.int8.calibration == Path("clip.mp4")
    assert options.int8.limits.min_agreement == 0


def test_what_is_worth_winograd_is_put_back() -> None:
    with pytest.raises(ZeroDivisionError), winograd_everywhere():
        assert winograd.is_worthwhile(1, 1, (1, 1, 1), "bf16")
        raise ZeroDivisionError
    assert not winograd.is_worthwhile(1, 1, (1, 1, 1), "f32")


def test_tanh_passes_are_put_back() -> None:
    with pytest.raises(ZeroDivisionError), tanh_passes(1):
        assert FrameTracker.tanh_passes == 1
        raise ZeroDivisionError
    assert FrameTracker.tanh_passes == 2


@pytest.mark.parametrize("row", [*DEPLOYMENTS, *TRACKERS], ids=lambda row: row.name)
def test_options_of_every_row_are_those_of_a_run(row: Row) -> None:
    RunOptions(**row.options)


def test_the_table_has_a_cell_for_every_column() -> None:
    scores: dict[str, Any] = {"ap": 51.237, "ap50": 80.0, "ap75": None,
                              "identities": {"j": 71.26, "switches_per_ten_tracks": 0.5}}
    row = line({"row": "here", "scores": {"val": scores, "hard": scores}}, ["val", "hard"])
    assert row.startswith("| here | 51.24 | 80.00 | - | 71.3 | 0.5 | 51.24 |")
    assert {text.count("|") for text in [row, *header(["val", "hard"]).splitlines()]} == {12}
