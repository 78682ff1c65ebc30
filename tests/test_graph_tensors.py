"""What graphs should read and return is what the exported ones do."""
from __future__ import annotations

from dataclasses import replace

import onnx
import pytest

from stmask_deploy.bundle import read_description
from stmask_deploy.graph_tensors import graph_tensors
from stmask_deploy.pretrained import demo_bundle

DESCRIPTION = read_description(demo_bundle())


@pytest.mark.parametrize("role", DESCRIPTION.roles)
def test_the_graphs_that_ship(role: str) -> None:
    graph = onnx.load(demo_bundle() / f"{role}.onnx").graph
    expected = graph_tensors(DESCRIPTION, role)
    assert list(expected) == [value.name for value in (*graph.input, *graph.output)]
    for value in (*graph.input, *graph.output):
        kind = value.type.tensor_type
        dtype, shape = expected[value.name]
        assert onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name == dtype, value.name
        assert len(kind.shape.dim) == len(shape), value.name
        for found, size in zip(kind.shape.dim, shape, strict=True):
            assert found.HasField("dim_value") == isinstance(size, int), value.name
            assert not isinstance(size, int) or found.dim_value == size, value.name


@pytest.mark.parametrize("role", ["frame", "temporal"])
def test_maps_have_the_channels_of_what_they_come_from(role: str) -> None:
    model = replace(DESCRIPTION.model, fpn_width=24, head_width=40)
    tensors = graph_tensors(replace(DESCRIPTION, model=model), role)
    for name in ("fpn", "prev_fpn", "p3"):
        assert name not in tensors or tensors[name].shape[1] == 24
    for name in ("temporal", "prev_temporal", "shared"):
        assert name not in tensors or tensors[name].shape[1] == 40
    assert {"fpn", "temporal"} <= set(tensors)
