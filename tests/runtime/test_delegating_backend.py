"""A graph in the place of another one looks and answers like it."""
from __future__ import annotations

from pathlib import Path

import numpy as np

from stmask_deploy.runtime.backends import BACKENDS
from stmask_deploy.runtime.delegating_backend import DelegatingBackend
from stmask_deploy.runtime.opening import open_backend

PARTS = ("metadata", "device", "is_on_host", "inputs", "outputs", "whole_from")


def test_it_is_the_other_graph(bundle: Path) -> None:
    graph = open_backend(BACKENDS[0], bundle / "frame.onnx", device="cpu")
    other = DelegatingBackend(graph)
    for name in PARTS:
        assert getattr(other, name) == getattr(graph, name)
    frame = np.full((1, *graph.inputs["frame"].shape[1:]), 100, np.uint8)
    names = ["boxes", "centerness"]
    found, expected = other.run({"frame": frame}, names, keep=["boxes"]), graph.run({"frame": frame}, names)
    assert list(found) == names
    for name in names:
        np.testing.assert_array_equal(found[name], expected[name])


def test_a_subclass_keeps_what_it_sets(bundle: Path) -> None:
    class Elsewhere(DelegatingBackend):
        def __init__(self) -> None:
            super().__init__(open_backend(BACKENDS[0], bundle / "frame.onnx", device="cpu"))
            self.is_on_host = False

    assert not Elsewhere().is_on_host
