"""PyTorch in place of exported graphs, against those."""
from __future__ import annotations

from dataclasses import replace
from math import inf
from pathlib import Path

import numpy as np
import pytest
import torch

from stmask_deploy.bundle import read_description
from stmask_deploy.export.torch_backend import TorchBackend, torch_bundle
from stmask_deploy.models.checkpoint import Checkpoint
from stmask_deploy.models.stmask import build_stmask
from stmask_deploy.runtime.opening import open_backend


@pytest.mark.parametrize("role", ["frame", "temporal"])
def test_it_computes_what_the_graph_does(native_bundle: Path, tiny: Checkpoint, role: str) -> None:
    description = read_description(native_bundle)
    bundle = torch_bundle(tiny.build(), description)
    assert bundle.roles == ("frame", "temporal") and bundle.description == description and not bundle.may_overlap
    graph, reference = (open_backend("onnxruntime", description.graph_path(native_bundle, role, "onnxruntime"),
                                     device="cpu"), getattr(bundle, role))
    assert (graph.inputs, graph.outputs) == (reference.inputs, reference.outputs)
    assert (reference.is_on_host, reference.whole_from, reference.metadata) == (True, inf, description)
    assert reference.device == f"PyTorch {torch.__version__} on CPU, f32, {torch.get_num_threads()} threads"
    rng = np.random.default_rng(0)
    inputs = {name: rng.integers(0, 256, spec.shape, np.uint8) if spec.dtype == "uint8" else
              rng.random([3 if size is None else size for size in spec.shape], np.float32)
              for name, spec in graph.inputs.items()}
    if role == "temporal":
        inputs["boxes"] = np.float32([[0.1, 0.2, 0.5, 0.6], [0, 0, 1, 1], [0.4, 0.3, 0.9, 0.8]])
    expected, found = graph.run(inputs), reference.run(inputs)
    assert list(found) == list(expected)
    for name, values in expected.items():
        assert found[name].dtype == values.dtype
        np.testing.assert_allclose(found[name], values, atol=1e-4 * max(np.ptp(values), 1))
    last = list(expected)[-1]
    assert list(reference.run(inputs, [last])) == [last]


def test_a_network_without_temporal_fusion_has_one_graph(native_bundle: Path, tiny: Checkpoint) -> None:
    config = replace(tiny.config, temporal=None)
    bundle = torch_bundle(build_stmask(config), replace(read_description(native_bundle), model=config))
    assert bundle.roles == ("frame",)


def test_where_it_computes(native_bundle: Path) -> None:
    backend = TorchBackend(torch.nn.Identity(), read_description(native_bundle), "frame", "meta")
    assert not backend.is_on_host and backend.device == f"PyTorch {torch.__version__} on meta, f32"
