from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import pytest
import torch
from click.testing import CliRunner
from tiny_networks import TINY, changed_copy
from untrained import build_untrained

from stmask_deploy.config import Calibration
from stmask_deploy.export.cli import main as export_main
from stmask_deploy.export.verify_cli import main
from stmask_deploy.synthetic.clips import render


def verify(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, [str(one) for one in arguments])
    return result.exit_code, result.output


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    for index, frame in enumerate(render("val", 2, 5, (120, 160)).pictures()):
        cv2.imwrite(str(folder / f"{index}.png"), frame)
    return folder


def test_a_good_bundle_and_whole_tracks(native_bundle: Path, tiny_checkpoint: Path, clip: Path) -> None:
    code, output = verify(native_bundle, tiny_checkpoint, clip, "--max-frames", 4)
    assert code == 0, output
    assert "4 frames" in output and "verified" in output
    rows = int(output.split("4 frames, ")[1].split(" rows")[0])
    assert rows > 0 and f"{rows} the same" in output


def test_a_damaged_video_is_told_apart(native_bundle: Path, tiny_checkpoint: Path, clip: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(clip, damaged)
    (damaged / "2.png").write_bytes(b"garbage")
    code, output = verify(native_bundle, tiny_checkpoint, damaged)
    assert code == 3 and "verified" in output
    assert "is damaged: 4 frames read, 1 unreadable file" in output


def test_tracks_of_f16_are_told_and_not_judged(gridsample_bundle: Path, tiny_checkpoint: Path, clip: Path) -> None:
    code, output = verify(gridsample_bundle, tiny_checkpoint, clip, "--max-frames", 2)
    assert code == 0, output
    tracks = [line for line in output.splitlines() if " tracks  2 frames" in line]
    assert [line.split(" tracks")[0].strip() for line in tracks] == [
        "onnxruntime", "onnxruntime f16", "openvino f16 weights"]
    assert ["(not judged)" in line for line in tracks] == [False, True, True]


def test_tensors_that_differ_exit_1_and_are_named(native_bundle: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = changed_copy(native_bundle, tmp_path / "bundle", "frame", 0.5, "centerness_layer.0.bias")
    code, output = verify(folder, tiny_checkpoint)
    assert code == 1
    assert "frame/boxes" in output and "MISS" in output


def test_another_checkpoint_is_refused(native_bundle: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    content = torch.load(tiny_checkpoint, weights_only=True)
    content["state_dict"]["fpn.lat_layers.0.bias"] += 1
    other = tmp_path / "other.pth"
    torch.save(content, other)
    code, output = verify(native_bundle, other)
    assert code == 2 and "was exported from tiny.pth" in output


def test_a_video_too_short(native_bundle: Path, tiny_checkpoint: Path, clip: Path, tmp_path: Path) -> None:
    picture = tmp_path / "one.png"
    picture.write_bytes((clip / "0.png").read_bytes())
    code, output = verify(native_bundle, tiny_checkpoint, picture)
    assert code == 2 and "at least two" in output


def test_not_a_bundle(tmp_path: Path, tiny_checkpoint: Path) -> None:
    code, output = verify(tmp_path, tiny_checkpoint)
    assert code == 2 and "not a bundle" in output


def test_a_missing_graph_is_not_passed_over(native_bundle: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(native_bundle, folder)
    (folder / "openvino" / "frame.xml").unlink()
    code, output = verify(folder, tiny_checkpoint)
    assert code == 2 and "openvino/frame.xml" in output


def test_kernels_whose_ratios_only_the_bundle_tells(tmp_path: Path) -> None:
    config = replace(TINY, kernel_shapes=((3, 3),) * 2, anchor_shapes=((3, 3), (6, 1.5)), deformable_blocks=(),
                     class_calibration=Calibration.NONE, mask_calibration=Calibration.NONE)
    frames = list(render("val", 1, 2, config.input_size).pictures())
    state = build_untrained(config, frames, candidate_share=0.1).state_dict()
    torch.save(state, tmp_path / "two.pth")
    exported = CliRunner().invoke(export_main, [str(tmp_path / "two.pth"), "-o", str(tmp_path / "two"),
                                                "--anchor-ratios", "1,4", "--input-size", "72x100"])
    assert exported.exit_code == 0, exported.output
    code, output = verify(tmp_path / "two", tmp_path / "two.pth")
    assert code == 0 and "verified" in output, output
