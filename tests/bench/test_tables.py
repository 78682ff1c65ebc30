"""Figures as text."""
from __future__ import annotations

from typing import Any

import pytest

from stmask_deploy.bench.tables import format_table, report_text


def report() -> dict[str, Any]:
    spread = {"p50": 1.25, "p90": 2.0, "p99": 30.06}
    row = {"row": "onnxruntime:f32", "bundle": 0, "fps": 12.346, "graphs_fps": 20.0, "startup_s": 0.5, "peak_mb": 123.4,
           "gflop": 7.006, "of_ceiling": 0.916, "stages_ms": {"decode": spread, "frame": spread},
           "agreement": {"ap": 99.5, "mean_iou": 98.765, "reference": "another:f32"}}
    bare = {"row": "openvino:f32", "bundle": 0, "fps": 1.0, "graphs_fps": 2.0, "startup_s": 3.0, "peak_mb": None,
            "gflop": None, "of_ceiling": None, "stages_ms": {"nms": spread, "frame": spread}, "agreement": None,
            "no_agreement": "other classes"}
    absent = {"row": "openvino:f32:gpu", "bundle": 0, "not_available": "no such device"}
    return {
        "machine": {"cpu": "a CPU", "cores": 2, "load_before": 0.5},
        "video": {"name": "clip.mp4", "width": 64, "height": 48},
        "settings": {"threads": None, "draw": False, "frames": 8, "rounds": 3},
        "bundles": [{"variant": "R50", "checkpoint": "a.pth", "export_id": "0123456789", "name": "one"}],
        "ceilings": [{"name": "onnxruntime:f32", "gflop_per_s": 480.6},
                     {"name": "openvino:f32", "gflop_per_s": None, "not_available": "it is broken"}],
        "rows": [row, bare, absent],
    }


TEXT = """\
R50 (a.pth, export 01234567)
clip.mp4 64x48, 8 frames x 3 rounds, results written; a CPU, 2 cores, default threads, load before 0.5

| row | FPS | FPS of the graphs | frame p50 / p90 / p99 | peak MB | start s | GFLOP | of ceiling | agreement AP | \
mask IoU |
|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|
| onnxruntime:f32 | 12.35 | 20.00 | 1.2 / 2.0 / 30.1 | 123 | 0.50 | 7.01 | 92 % | 99.50 | 98.77 |
| openvino:f32 | 1.00 | 2.00 | 1.2 / 2.0 / 30.1 | - | 3.00 | - | - | - | - |

Milliseconds, p50 / p90 / p99, one frame at a time:

| stage | onnxruntime:f32 | openvino:f32 |
|---|---:|---:|
| decode | 1.2 / 2.0 / 30.1 | - |
| nms | - | 1.2 / 2.0 / 30.1 |
| whole frame | 1.2 / 2.0 / 30.1 | 1.2 / 2.0 / 30.1 |

ceiling onnxruntime:f32: 481 GFLOP/s, a chain of plain 256-channel 3x3 convolutions in the same run

ceiling openvino:f32: not available: it is broken

openvino:f32: no agreement: other classes

openvino:f32:gpu: not available: no such device

agreement: with another:f32, AP and mean mask IoU in percent"""


def test_a_report() -> None:
    assert report_text(report(), markdown=True) == TEXT


@pytest.mark.parametrize(("settings", "told"), [
    ({"threads": 2}, "2 threads"), ({"draw": True}, "results and video written")])
def test_how_it_was_run(settings: dict[str, Any], told: str) -> None:
    one = report()
    one["settings"] |= settings
    assert told in report_text(one, markdown=True)


def test_rows_of_two_bundles_are_told_apart() -> None:
    one = report()
    one["bundles"].append({**one["bundles"][0], "name": "two"})
    one["rows"][1]["bundle"] = 1
    text = report_text(one, markdown=True)
    assert "| one onnxruntime:f32 | 12.35" in text and "| two openvino:f32 | 1.00" in text


def test_columns_are_aligned_for_a_terminal() -> None:
    text = format_table([("name", "ms", ""), ("a", "1.25", "x"), ("longer", "-", "")], markdown=False)
    assert text == "name      ms\na       1.25  x\nlonger     -"
