from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
from onnx import numpy_helper
from tiny_networks import TINY
from torch import nn

from stmask_deploy.config import CenternessOrder
from stmask_deploy.export.joined_head import JoinedHead, join_boxes
from stmask_deploy.models.head import PredictionHead
from stmask_deploy.models.stmask import build_stmask


def heads(model: nn.Module) -> list[PredictionHead]:
    return [head for head in model.modules() if isinstance(head, PredictionHead)]


@pytest.mark.parametrize("order", list(CenternessOrder))
@pytest.mark.parametrize("scales", [(1.0,), (1.0, 1.5)])
def test_a_joined_head_predicts_what_the_head_does(scales: tuple[float, ...], order: CenternessOrder) -> None:
    torch.manual_seed(0)
    model = build_stmask(replace(TINY, anchor_scales=scales, centerness_order=order)).double()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    [old], [new] = heads(model), heads(join_boxes(model))
    generator = torch.Generator().manual_seed(0)
    levels = [torch.randn((2, old.upfeature[0].in_channels, *size), generator=generator, dtype=torch.float64)
              for size in ((5, 7), (3, 4), (1, 1))]
    with torch.no_grad():
        (first, shared), (second, joined_shared) = old(levels), new(levels)
    for name, values in vars(first).items():
        torch.testing.assert_close(getattr(second, name), values, rtol=1e-12, atol=1e-12)
    assert all(map(torch.equal, shared, joined_shared))
    JoinedHead(old)
    assert model.state_dict().keys() == before.keys()  # it is a copy
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_frame_graph_is_joined(native_bundle: Path) -> None:
    graph = onnx.load(native_bundle / "frame.onnx").graph
    weights = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    read = [node.input[1] for node in graph.node if node.op_type == "Conv" and "centerness_layer" in node.input[1]]
    assert len(read) == len(TINY.kernel_shapes) * len(TINY.level_sizes)
    assert {len(weights[name]) for name in read} == {5 * len(TINY.anchor_scales)}
    assert not any("bbox_layer" in name for node in graph.node for name in node.input)
