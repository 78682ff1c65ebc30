"""Figures and the table, from samples whose figures are known by heart."""
from __future__ import annotations

from typing import Any

import pytest
from report import add_speedups, latency_table, summarise
from rows import Sample


def sample(frame_graph: float = 0.5, total: float = 1.0, shown: int = 3, **stages: float) -> Sample:
    return Sample({"frame_graph": frame_graph, **stages}, total, shown, tracked=2 * shown)


def test_percentiles_are_in_milliseconds() -> None:
    figures = summarise([sample(frame_graph=value / 1000) for value in range(1, 12)])
    assert figures["frames"] == 11
    assert figures["stages_ms"]["frame_graph"] == {"p50": 6, "p90": 10, "min": 1}


def test_a_stage_that_did_not_run_in_a_frame_took_no_time_there() -> None:
    figures = summarise([sample(), sample(), sample(temporal_graph=0.2)])
    assert figures["stages_ms"]["temporal_graph"]["p50"] == 0
    assert "nms" not in figures["stages_ms"]


def test_outside_the_graphs_is_all_but_graphs_decode_and_encode() -> None:
    figures = summarise([sample(0.5, 1.0, decode=0.1, temporal_graph=0.05, encode=0.05, masks=0.02, draw=0.03)])
    # 0.3 s, of which no stage claims 0.25
    assert figures["stages_ms"]["outside_graphs"]["p50"] == pytest.approx(300)
    assert figures["stages_ms"]["frame"]["p50"] == 1000


def test_time_outside_the_graphs_is_taken_frame_by_frame() -> None:
    # The difference of the medians would be 1.0 - 0.5 = 0.5.
    figures = summarise([sample(0.1, 1.0), sample(0.5, 0.6), sample(0.8, 1.1)])
    assert figures["stages_ms"]["outside_graphs"]["p50"] == pytest.approx(300)


def test_frames_a_second_count_the_slow_frames_too() -> None:
    assert summarise([sample(total=0.1), sample(total=0.1), sample(total=1.8)])["fps"] == pytest.approx(1.5)


def test_objects() -> None:
    figures = summarise([sample(shown=count) for count in (2, 9, 4)])
    assert figures["shown"] == {"p50": 4, "min": 2, "max": 9}
    assert figures["tracked"] == {"p50": 8, "min": 4, "max": 18}


def rows() -> list[dict[str, Any]]:
    return [{"row": "onnxruntime:f32", "device": "ORT", **summarise([sample(0.25, 0.5, temporal_graph=0.1)])},
            {"row": "torch:f32", "device": "PyTorch", **summarise([sample(0.5, 2.0, temporal_graph=0.2)])},
            {"row": "openvino:bf16", "not_available": "no such arithmetic here"}]


def test_speedups_are_against_pytorch() -> None:
    table = rows()
    add_speedups(table)
    assert table[0]["speedup"] == {"frame": 4, "frame_graph": 2, "temporal_graph": 2}
    assert table[1]["speedup"] == {"frame": 1, "frame_graph": 1, "temporal_graph": 1}
    assert "speedup" not in table[2]


def test_a_stage_that_took_no_time_has_no_speedup() -> None:
    table = [{"row": name, **summarise([sample(), sample(), sample(temporal_graph=0.1)])}
             for name in ("torch:f32", "openvino:f32")]
    add_speedups(table)
    assert table[1]["speedup"] == {"frame": 1, "frame_graph": 1}


def test_without_pytorch_there_are_no_speedups() -> None:
    table = [rows()[0], {"row": "torch:f32", "not_available": "no PyTorch"}]
    add_speedups(table)
    assert "speedup" not in table[0]


def report(table: list[dict[str, Any]], graphs_only: bool = False) -> dict[str, Any]:
    return {"graphs_only": graphs_only, "bundles": [{"variant": "R50-DCN", "checkpoint": "model.pth",
                                                     "export_id": "0123456789abcdef", "rows": table}]}


def test_table() -> None:
    table = rows()
    add_speedups(table)
    assert latency_table(report(table)) == """\
### R50-DCN (model.pth, export 01234567)

| ms: p50 / p90 / min | onnxruntime:f32 | torch:f32 |
|---|---:|---:|
| frame graph | 250.0 / 250.0 / 250.0 | 500.0 / 500.0 / 500.0 |
| temporal graph | 100.0 / 100.0 / 100.0 | 200.0 / 200.0 / 200.0 |
| outside the graphs | 150.0 / 150.0 / 150.0 | 1300.0 / 1300.0 / 1300.0 |
| whole frame | 500.0 / 500.0 / 500.0 | 2000.0 / 2000.0 / 2000.0 |
| whole frame, times PyTorch's speed | 4.00 | 1.00 |
| frame graph, times PyTorch's speed | 2.00 | 1.00 |
| frames a second, end to end | 2.00 | 0.50 |
| objects shown: median (least to most) | 3 (3 to 3) | 3 (3 to 3) |
| objects tracked: median (least to most) | 6 (6 to 6) | 6 (6 to 6) |

openvino:bf16: not available: no such arithmetic here"""


def test_table_of_the_graphs_alone() -> None:
    table = rows()[:1]
    assert latency_table(report(table, graphs_only=True)).splitlines()[2:] == [
        "| ms: p50 / p90 / min | onnxruntime:f32 |", "|---|---:|", "| frame graph | 250.0 / 250.0 / 250.0 |",
        "| temporal graph | 100.0 / 100.0 / 100.0 |"]


def test_table_where_nothing_could_be_measured() -> None:
    text = latency_table(report(rows()[2:]))
    assert text.splitlines() == ["### R50-DCN (model.pth, export 01234567)", "", "",
                                 "openvino:bf16: not available: no such arithmetic here"]
