from __future__ import annotations

import pytest

from stmask_deploy.bench.row import Row
from stmask_deploy.errors import InputError


def test_a_row_with_everything() -> None:
    row = Row.parse("openvino:bf16:cpu,mode=latency,detect_every=2,tracker=paper,score_threshold=0.3")
    assert (row.backend, row.precision, row.device, row.mode) == ("openvino", "bf16", "cpu", "latency")
    assert row.options == {"detect_every": 2, "tracker": "paper", "score_threshold": 0.3}


@pytest.mark.parametrize("text", ["onnxruntime:f32", "openvino:bf16:cpu", "openvino:f32,mode=throughput,nms=per-class"])
def test_rows_read_back(text: str) -> None:
    assert str(Row.parse(text)) == text


@pytest.mark.parametrize("text, told", [
    ("", "give BACKEND:PRECISION"),
    ("openvino", "give BACKEND:PRECISION"),
    ("openvino:f32:cpu:x", "give BACKEND:PRECISION"),
    ("tensorflow:f32", "backend 'tensorflow' is not known"),
    ("openvino:f64", "precision 'f64' is not known"),
    ("onnxruntime:bf16", "does not compute in bf16"),
    ("openvino:f32:cuda", "device 'cuda' is not one of backend openvino"),
    ("openvino:f32,fast", "'fast' is not OPTION=VALUE"),
    ("openvino:f32,top_k=5,top_k=6", "is not OPTION=VALUE, or is given twice"),
    ("openvino:f32,speed=9", "option speed is not known; known: mode, score_threshold"),
    ("openvino:f32,mode=quick", "mode quick is not known"),
    ("openvino:f32,top_k=0", "top_k must be in"),
    ("openvino:f32,top_k=many", "top_k must be a number, got 'many'"),
])
def test_bad_rows(text: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        Row.parse(text)
