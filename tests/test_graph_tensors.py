"""What graphs should read and return is what the exported ones do."""
from __future__ import annotations

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
