from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from onnx import numpy_helper
from tiny_networks import TINY
from torch import nn

from stmask_deploy.export.joined_conv import join_boxes
from stmask_deploy.export.onnx_model import export_module
from stmask_deploy.models.checkpoint import Checkpoint
from stmask_deploy.models.head import PredictionHead


def heads(model: nn.Module) -> list[PredictionHead]:
    return [head for head in model.modules() if isinstance(head, PredictionHead)]


def test_the_joined_convolution_gives_what_both_gave(tiny: Checkpoint) -> None:
    model = tiny.build()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    [old], [new] = heads(model), heads(join_boxes(model))
    x = torch.randn((2, old.bbox_layer[0].in_channels, 5, 7), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for name in ("bbox_layer", "centerness_layer"):
            for first, second in zip(getattr(old, name), getattr(new, name), strict=True):
                torch.testing.assert_close(second(x), first(x), rtol=1e-6, atol=1e-6)
    assert model.state_dict().keys() == before.keys()  # it is a copy
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("simplify", [True, False])
def test_a_graph_contains_the_joined_convolution_once(tiny: Checkpoint, simplify: bool) -> None:
    class BoxesAndCenterness(nn.Module):
        def __init__(self, head: PredictionHead) -> None:
            super().__init__()
            self.boxes, self.centerness = head.bbox_layer[1], head.centerness_layer[1]

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return self.boxes(x), self.centerness(x)

    [head] = heads(join_boxes(tiny.build()))
    x = torch.randn((1, head.bbox_layer[1].in_channels, 5, 7))
    graph = export_module(BoxesAndCenterness(head).eval(), [x], ["x"], ["boxes", "centerness"], simplify=simplify)
    assert [node.op_type for node in graph.graph.node].count("Conv") == 1


def test_the_frame_graph_is_joined(native_bundle: Path) -> None:
    graph = onnx.load(native_bundle / "frame.onnx").graph
    weights = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    read = [node.input[1] for node in graph.node if node.op_type == "Conv" and "centerness_layer" in node.input[1]]
    assert len(read) == len(TINY.kernel_shapes) * len(TINY.level_sizes)
    assert {len(weights[name]) for name in read} == {5 * len(TINY.anchor_scales)}
    assert not any("bbox_layer" in name for node in graph.node for name in node.input)
