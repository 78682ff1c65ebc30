"""Prototypes inside boxes are those of the whole frame, and no more is computed than they need."""
from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Any

import numpy as np
import pytest

from stmask_deploy.errors import StmaskError
from stmask_deploy.pretrained import demo_bundle
from stmask_deploy.runtime import prototypes
from stmask_deploy.runtime.backends import Backend, TensorSpec
from stmask_deploy.runtime.loading import Bundle, open_bundle
from stmask_deploy.runtime.masks import assemble_masks
from stmask_deploy.runtime.prototypes import covered_cells, prototypes_within
from stmask_deploy.synthetic.clips import render
from stmask_deploy.types import Array

NO_BOXES = np.zeros((0, 4), np.float32)


class Doubled:
    """A graph that repeats every cell of P3 four times, and remembers the sizes of its windows."""

    def __init__(self, value: float = 1.0, whole_from: float = inf) -> None:
        self.outputs = {"prototypes": TensorSpec("float32", (None, None, 3))}
        self.sizes: list[tuple[int, ...]] = []
        self.whole_from, self._value = whole_from, np.float32(value)

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        p3 = inputs["p3"]
        assert p3.flags.c_contiguous
        self.sizes.append(p3.shape[2:])
        return {"prototypes": p3[0].transpose(1, 2, 0).repeat(2, axis=0).repeat(2, axis=1) * self._value}


@pytest.fixture(scope="module", params=["onnxruntime", "openvino"])
def bundle(request: pytest.FixtureRequest) -> Bundle:
    return open_bundle(demo_bundle(), request.param, device="cpu")


@pytest.fixture(scope="module")
def frame(bundle: Bundle) -> dict[str, Any]:
    picture = next(render("val", 5, 1, bundle.description.model.input_size).pictures())[None]
    return bundle.frame.run({"frame": picture}, ("prototypes", "p3"))


def windows(bundle: Bundle) -> Backend:
    assert bundle.prototypes is not None
    return bundle.prototypes


def random_boxes(rng: np.random.Generator) -> Array:
    """One to three boxes, some beyond the frame, some with swapped corners."""
    middle, size = rng.uniform(-0.1, 1.1, (rng.integers(1, 4), 2)), rng.uniform(-0.3, 0.3, 2)
    return np.concatenate([middle - size, middle + size], axis=1).astype(np.float32)


@pytest.mark.parametrize("step", [1, prototypes.STEP])
def test_masks_are_those_of_the_whole_frame(bundle: Bundle, frame: dict[str, Any], step: int,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prototypes, "STEP", step)
    rng = np.random.default_rng(0)
    for _ in range(25):
        boxes = random_boxes(rng)
        coeffs = rng.normal(size=(len(boxes), frame["prototypes"].shape[2])).astype(np.float32)
        within = prototypes_within(boxes, frame["p3"], windows(bundle))
        np.testing.assert_allclose(assemble_masks(within, coeffs, boxes),
                                   assemble_masks(frame["prototypes"], coeffs, boxes), atol=1e-5)


def test_a_window_without_its_surroundings_would_differ(bundle: Bundle, frame: dict[str, Any],
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    box = np.array([[0.4, 0.4, 0.6, 0.6]], np.float32)
    read = covered_cells(box, frame["prototypes"].shape[:2])
    monkeypatch.setattr(prototypes, "STEP", 1)
    errors = []
    for reach in (prototypes.REACH, prototypes.REACH - 1):
        monkeypatch.setattr(prototypes, "REACH", reach)
        found = prototypes_within(box, frame["p3"], windows(bundle))
        errors.append(np.abs(found - frame["prototypes"])[read].max())
    assert errors[0] < 1e-5 < 1e-3 < errors[1]


def test_cells_are_those_that_masks_read() -> None:
    rng = np.random.default_rng(1)
    size = (11, 17)
    for _ in range(200):
        boxes = random_boxes(rng)
        ones = np.ones((*size, 1), np.float32)
        read = (assemble_masks(ones, np.ones((len(boxes), 1), np.float32), boxes) > 0).any(axis=0)
        rows, columns = covered_cells(boxes, size)
        expected = np.zeros(size, bool)
        if read.any():
            ys, xs = np.nonzero(read)
            expected[ys.min():ys.max() + 1, xs.min():xs.max() + 1] = True
        found = np.zeros(size, bool)
        found[rows, columns] = True
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("boxes", [NO_BOXES, np.array([[1.5, 0.2, 1.8, 0.4]], np.float32),
                                   np.full((1, 4), np.nan, np.float32)], ids=["none", "beside the frame", "no numbers"])
def test_nothing_is_computed_where_nothing_is_read(boxes: Array) -> None:
    graph = Doubled()
    found = prototypes_within(boxes, np.ones((1, 3, 20, 30), np.float32), graph)  # type: ignore[arg-type]
    assert found.shape == (40, 60, 3) and not found.any() and not graph.sizes


def test_the_window_is_small_and_of_few_sizes() -> None:
    graph = Doubled()
    p3 = np.random.default_rng(2).random((1, 3, 48, 80), dtype=np.float32)
    box = np.array([[0.5, 0.5, 0.55, 0.6]], np.float32)  # cells 79 to 89 and 47 to 59 of 160 and 96
    found = prototypes_within(box, p3, graph)  # type: ignore[arg-type]
    assert graph.sizes == [(20, 20)]  # from 16 to 36 and from 32 to 52
    assert np.argwhere(found.any(axis=2)).min(axis=0).tolist() == [47, 79]
    assert np.argwhere(found.any(axis=2)).max(axis=0).tolist() == [58, 88]
    np.testing.assert_array_equal(found[50, 80], p3[0, :, 25, 40])
    for shift in np.linspace(0, 0.3, 40, dtype=np.float32):
        prototypes_within(box + shift, p3, graph)  # type: ignore[arg-type]
    assert all(side % prototypes.STEP == 0 for size in graph.sizes for side in size)


@pytest.mark.parametrize("whole_from, size", [(inf, (48, 44)), (0.56, (48, 44)), (0.55, (48, 80)), (0.0, (48, 80))])
def test_large_windows_are_of_the_whole_map_where_that_is_faster(whole_from: float, size: tuple[int, int]) -> None:
    graph = Doubled(whole_from=whole_from)
    p3 = np.random.default_rng(2).random((1, 3, 48, 80), dtype=np.float32)
    box = np.array([[0.55, 0, 0.95, 1]], np.float32)  # columns 36 to 80 with their surroundings: 0.55 of the map
    found = prototypes_within(box, p3, graph)  # type: ignore[arg-type]
    assert graph.sizes == [size]
    rows, columns = covered_cells(box, (96, 160))
    expected = p3[0].transpose(1, 2, 0).repeat(2, axis=0).repeat(2, axis=1)
    np.testing.assert_array_equal(found[rows, columns], expected[rows, columns])


def test_nothing_is_computed_of_a_whole_map_that_no_box_reads() -> None:
    graph = Doubled(whole_from=0.0)
    assert not prototypes_within(NO_BOXES, np.ones((1, 3, 20, 30), np.float32), graph).any()  # type: ignore[arg-type]
    assert not graph.sizes


def test_values_that_are_not_numbers_are_told() -> None:
    everywhere = np.array([[0, 0, 1, 1]], np.float32)
    with pytest.raises(StmaskError, match="prototype graph returned values that are not numbers"):
        prototypes_within(everywhere, np.ones((1, 3, 8, 8), np.float32), Doubled(np.nan))  # type: ignore[arg-type]
