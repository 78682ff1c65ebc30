"""A window of P3 against the prototypes of the whole frame."""
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_networks import TINY, write_checkpoint

from stmask_deploy.config import Calibration, ModelConfig
from stmask_deploy.export.exporter import ExportOptions, export_checkpoint
from stmask_deploy.export.prototype_graph import PrototypeGraph
from stmask_deploy.models.checkpoint import load_checkpoint
from stmask_deploy.models.stmask import build_stmask
from stmask_deploy.runtime.loading import open_bundle
from stmask_deploy.runtime.model import Model, load
from stmask_deploy.runtime.options import RunOptions
from stmask_deploy.runtime.prototypes import REACH
from stmask_deploy.synthetic.clips import render


@pytest.mark.parametrize("config", [TINY, replace(TINY, proto_width=5, num_prototypes=3)], ids=["tiny", "other widths"])
def test_inside_a_window_prototypes_are_those_of_the_whole_map(config: ModelConfig) -> None:
    torch.manual_seed(0)
    graph = PrototypeGraph(build_stmask(config)).eval()
    for parameter in graph.parameters():
        torch.nn.init.normal_(parameter, std=0.3)  # biases too: they are what a border must not add
    p3 = torch.rand(1, config.fpn_width, 30, 40)
    with torch.no_grad():
        whole = graph(p3)
        assert whole.shape == (60, 80, config.num_prototypes)
        for top, bottom, left, right in ((0, 15, 0, 12), (7, 23, 9, 31), (18, 30, 20, 40)):
            part = graph(p3[:, :, top:bottom, left:right])
            inner = [slice(0 if edge == start else 2 * REACH, None if end == side else -2 * REACH)
                     for start, end, edge, side in ((top, bottom, 0, 30), (left, right, 0, 40))]
            expected = whole[2 * top:2 * bottom, 2 * left:2 * right]
            torch.testing.assert_close(part[tuple(inner)], expected[tuple(inner)], atol=1e-5, rtol=1e-4)
            assert not torch.allclose(part, expected, atol=1e-3)  # only inside: else this would show nothing


@pytest.fixture(scope="module")
def p3_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its temporal network reads P3, which then leaves the frame graph under two names. It has no deformable
    convolutions, which take most of the time to export."""
    assert TINY.temporal is not None
    config = replace(TINY, temporal=replace(TINY.temporal, level=0), class_calibration=Calibration.NONE,
                     mask_calibration=Calibration.NONE, deformable_blocks=(), kernel_shapes=((3, 3),),
                     anchor_shapes=((3, 3),))
    folder = tmp_path_factory.mktemp("p3")
    export_checkpoint(load_checkpoint(write_checkpoint(folder / "tiny.pth", config)), folder / "bundle",
                      ExportOptions(openvino_weights="f32", max_candidates=60))
    return folder / "bundle"


@pytest.mark.parametrize("name", ["native_bundle", "p3_bundle"])
def test_a_run_is_the_same_without_it(name: str, request: pytest.FixtureRequest) -> None:
    bundle: Path = request.getfixturevalue(name)
    for backend in ("onnxruntime", "openvino"):
        windowed = load(bundle, backend, device="cpu", detect_every=2)
        opened = open_bundle(bundle, backend, device="cpu")
        whole = Model(replace(opened, prototypes=None), RunOptions(detect_every=2))
        shown = 0
        for image in render("val", 3, 5, opened.description.model.input_size).pictures():
            found, expected = windowed.step(image), whole.step(image)
            np.testing.assert_array_equal(found.ids, expected.ids)
            np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
            assert (found.masks != expected.masks).sum() <= 1e-3 * found.masks.size
            shown += len(found)
        assert shown > 5
