"""The temporal graph with more channels than the network has."""
from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch

from stmask_deploy.export.temporal_graph import TemporalGraph, example_inputs
from stmask_deploy.models.checkpoint import Checkpoint


@pytest.mark.parametrize("multiple", [1, 5, 16, 64])
@pytest.mark.parametrize("count", [0, 1, 4])
def test_more_channels_change_nothing(tiny: Checkpoint, multiple: int, count: int) -> None:
    model = tiny.build()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    graph = TemporalGraph(model, multiple)
    *maps, boxes = example_inputs(tiny.config)
    inputs = (*maps, torch.cat([boxes, boxes / 2])[:count])
    with torch.no_grad():
        for found, expected in zip(graph(*inputs), model.TemporalNet(*inputs), strict=True):
            torch.testing.assert_close(found, expected)
    channels = graph.net.conv1.in_channels
    assert channels % multiple == 0 and 0 <= channels - model.TemporalNet.conv1.in_channels < multiple
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())  # it is a copy


def test_the_exported_convolution_reads_whole_blocks_and_maps_are_concatenated_once(native_bundle: Path) -> None:
    graph = onnx.load(native_bundle / "temporal.onnx").graph
    weights = {one.name: list(one.dims) for one in graph.initializer}
    widths = [weights[node.input[1]][1] for node in graph.node if node.op_type == "Conv"]
    assert len(widths) == 3 and widths[0] == 32  # of 3 * 3 + 2 * 8
    assert [len(node.input) for node in graph.node if node.op_type == "Concat"] == [4, 2]  # maps; corners of boxes
