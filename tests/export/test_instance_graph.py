"""The rows of a few anchors against the dense branches of the network."""
from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from tiny_networks import TINY, write_checkpoint

from stmask_deploy.config import Calibration, ModelConfig
from stmask_deploy.export.exporter import ExportOptions, export_checkpoint
from stmask_deploy.export.frame_graph import shared_rows
from stmask_deploy.export.instance_graph import InstanceGraph, Windows, instance_inputs
from stmask_deploy.models.checkpoint import load_checkpoint
from stmask_deploy.models.frames import prepare_frames
from stmask_deploy.models.stmask import build_stmask
from stmask_deploy.runtime.loading import open_bundle
from stmask_deploy.runtime.model import Model, load
from stmask_deploy.runtime.options import RunOptions
from stmask_deploy.synthetic.clips import render

LOCAL = replace(TINY, mask_calibration=Calibration.NONE)
CONFIGS = {
    "released kernels": LOCAL,
    "two scales": replace(LOCAL, class_calibration=Calibration.NONE, anchor_scales=(1.0, 1.5)),
    "even and long kernels": replace(LOCAL, kernel_shapes=((2, 4), (7, 1)), anchor_shapes=((2.0, 4.0), (7.0, 1.0))),
    "no tower": replace(LOCAL, tower_depth=0),
    "deep tower": replace(LOCAL, tower_depth=3),  # wider than the small levels
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_every_anchor_has_the_values_of_the_dense_branches(config: ModelConfig) -> None:
    torch.manual_seed(0)
    model = build_stmask(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)  # biases too: they are what a border must not add
    frame = torch.randint(0, 256, (1, *config.input_size, 3), dtype=torch.uint8)
    with torch.no_grad():
        prediction = model(prepare_frames(frame, config))
        anchors = torch.arange(prediction.anchors.mask_coeffs.shape[1])
        coeffs, embeddings = InstanceGraph(model, config)(shared_rows(prediction), anchors)
        torch.testing.assert_close(coeffs, prediction.anchors.mask_coeffs[0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(embeddings, prediction.anchors.embeddings[0], atol=1e-5, rtol=1e-4)
        some = torch.tensor([5, 0, 5, len(anchors) - 1])  # any order, repeated
        few, _ = InstanceGraph(model, config)(shared_rows(prediction), some)
        torch.testing.assert_close(few, coeffs[some], atol=1e-6, rtol=1e-5)


def test_windows_spelled_out() -> None:
    sizes, reach = ((3, 4), (1, 2)), 2
    maps = [torch.arange(1, 13).view(3, 4), torch.arange(13, 15).view(1, 2)]  # the value of a cell is its number
    shared = torch.cat([one.flatten() for one in maps])[:, None].float()
    found, inside = Windows(sizes, reach)(shared, torch.arange(14))
    assert found.shape == inside.shape == (14, 1, 5, 5)
    cells = [(values, row, column) for values in maps for row in range(len(values)) for column in range(len(values[0]))]
    for number, (values, row, column) in enumerate(cells):
        for y, x in itertools.product(range(5), repeat=2):
            there = 0 <= row + y - 2 < len(values) and 0 <= column + x - 2 < len(values[0])
            assert found[number, 0, y, x] == (values[row + y - 2, column + x - 2] if there else 0)
            assert inside[number, 0, y, x] == there


def test_no_rows() -> None:
    shared, _ = instance_inputs(LOCAL)
    coeffs, embeddings = InstanceGraph(build_stmask(LOCAL), LOCAL)(shared, torch.zeros(0, dtype=torch.int64))
    assert coeffs.shape == (0, LOCAL.num_prototypes) and embeddings.shape == (0, LOCAL.embedding_dim)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("local")
    checkpoint = load_checkpoint(write_checkpoint(folder / "local.pth", LOCAL))
    verification = export_checkpoint(checkpoint, folder / "bundle",
                                     ExportOptions(openvino_weights="f32", max_candidates=60))
    compared = {(check.backend, check.output) for check in verification.checks}
    assert compared >= {(backend, f"instances/{name}") for backend in ("onnxruntime", "openvino")
                        for name in ("mask_coeffs", "embeddings")}
    return folder / "bundle"


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("nms", ["cross-class", "per-class"])
def test_a_run_is_the_same_without_it(bundle: Path, backend: str, nms: str) -> None:
    """Per-class NMS keeps an anchor once for each of its classes."""
    lazy = load(bundle, backend, device="cpu", nms=nms)
    dense = Model(replace(open_bundle(bundle, backend, device="cpu"), instances=None), RunOptions(nms=nms))
    shown = 0
    for image in render("val", 3, 4, LOCAL.input_size).pictures():
        found, expected = lazy.step(image), dense.step(image)
        np.testing.assert_array_equal(found.ids, expected.ids)
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
        assert found.segmentations == expected.segmentations
        shown += len(found)
    assert shown > 4


def test_sizes_keep_their_names(bundle: Path) -> None:
    graph = onnx.load(bundle / "instances.onnx").graph
    names = {info.name: [size.dim_param for size in info.type.tensor_type.shape.dim] for info in graph.input}
    assert names == {"shared": ["", ""], "anchor_index": ["N"]}


def test_calibrated_branches_have_no_instance_graph(native_bundle: Path) -> None:
    assert open_bundle(native_bundle, device="cpu").instances is None
    assert not (native_bundle / "instances.onnx").exists()
