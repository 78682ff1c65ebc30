"""RoIAlign as a matrix product against OpenVINO's own kernel."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

ov = pytest.importorskip("openvino")

from stmask_deploy.runtime.openvino_backend import shared_core  # noqa: E402
from stmask_deploy.runtime.openvino_pooling import KIND, expand_roi_align  # noqa: E402

Array = NDArray[np.float32]
HEIGHT, WIDTH = 6, 9


def pooling_model(size: tuple[int, ...] = (1, 5, HEIGHT, WIDTH), bins: int = 4, guard: str = "none",
                  columns: int | None = None, **changes: Any) -> Any:
    """RoIAlign with the features behind a node and a node behind it, as in a network."""
    from openvino import opset13 as op

    features = op.parameter(size, np.float32, name="features")
    boxes = op.parameter([-1, 4], np.float32, name="boxes")
    keep = op.parameter([-1, 1, 1, -1 if guard == "columns" else 1], bool, name="keep")
    count = op.gather(op.shape_of(boxes, "i64"), op.constant(np.array([0])), op.constant(np.int64(0)))
    index = op.broadcast(op.constant(np.int32(0)), count)
    settings = {"sampling_ratio": 0, "spatial_scale": 1.0, "mode": "avg", "aligned_mode": "half_pixel_for_nn",
                **changes}
    pooled = op.roi_align(op.negative(features), boxes, index, bins, columns or bins, **settings)
    pooled.set_friendly_name("pooled")
    raw = pooled
    if guard != "none":
        other = op.constant(np.float32(7 if guard == "sevens" else 0))
        chosen = (other, pooled) if guard == "swapped" else (pooled, other)
        pooled = op.select(keep, *chosen)
    out = op.add(pooled, raw) if guard == "read twice" else op.negative(pooled)
    out.output(0).get_tensor().set_names({"out"})
    return ov.Model([out], [features, boxes, keep])


def run(model: Any, features: Array, boxes: Array, keep: Any = True, precision: str = "f32") -> Array:
    compiled = shared_core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": precision})
    if compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name() != precision:
        pytest.skip(f"this CPU does not compute in {precision}")
    kept = np.asarray(keep)
    kept = kept if kept.ndim == 4 else np.broadcast_to(kept.reshape(-1, 1, 1, 1), (len(boxes), 1, 1, 1))
    return np.array(compiled({"features": features, "boxes": boxes, "keep": np.ascontiguousarray(kept)})["out"])


def kinds(model: Any) -> list[str]:
    return [node.get_type_name() for node in model.get_ordered_ops()]


def random_features(*size: int) -> Array:
    return np.random.default_rng(0).standard_normal(size).astype(np.float32)


def random_boxes(count: int) -> Array:
    """xyxy, sorted, inside the map, with an area."""
    rng = np.random.default_rng(count)
    corners = rng.uniform(0, 1, (count, 2, 2)) * [WIDTH, HEIGHT]
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1).astype(np.float32)


@pytest.mark.parametrize("bins", [1, 4, 7])
@pytest.mark.parametrize("boxes", [
    pytest.param(random_boxes(0), id="none"),
    pytest.param(random_boxes(1), id="one"),
    pytest.param(random_boxes(60), id="many"),
    pytest.param([[0, 0, WIDTH, HEIGHT]], id="the whole map"),
    pytest.param([[0, 0, 0.01, 0.01], [WIDTH - 0.01, HEIGHT - 0.01, WIDTH, HEIGHT]], id="specks in the corners"),
    pytest.param([[0, 2, WIDTH, 2.5], [3, 0, 3.001, HEIGHT]], id="slivers"),
    pytest.param([[1, 1, 1 + size, 1 + size] for size in (1, 4, 5)], id="sides that bins divide"),
])
def test_equals_the_kernel_in_f32(bins: int, boxes: Any) -> None:
    features, rois = random_features(1, 5, HEIGHT, WIDTH), np.array(boxes, np.float32).reshape(-1, 4)
    expected = run(pooling_model(bins=bins), features, rois)
    model = pooling_model(bins=bins)
    assert expand_roi_align(model) == 1
    assert KIND not in kinds(model) and "pooled" in {node.get_friendly_name() for node in model.get_ordered_ops()}
    assert expected.shape == (len(rois), 5, bins, bins)
    np.testing.assert_allclose(run(model, features, rois), expected, atol=1e-5)


@pytest.mark.parametrize("bins", [3, 5, 7, 11])
@pytest.mark.parametrize("size", [(24, 40), (42, 72), (66, 66)], ids=str)
def test_counts_the_samples_of_boxes_whose_sides_bins_divide(size: tuple[int, int], bins: int) -> None:
    """21 * (1 / 7) is more than 3 in f32, and a division by a constant may be computed so."""
    sides = np.arange(bins, min(size) + 1, bins)
    boxes = np.stack([0 * sides, 0 * sides, sides, sides], axis=1).astype(np.float32)
    features = random_features(1, 3, *size)
    model = pooling_model(features.shape, bins)
    expand_roi_align(model)
    np.testing.assert_allclose(run(model, features, boxes), run(pooling_model(features.shape, bins), features, boxes),
                               atol=1e-5)


def test_boxes_without_area_give_zeros_as_behind_the_guard() -> None:
    features = random_features(1, 5, HEIGHT, WIDTH)
    boxes = np.array([[2, 1, 2, 4], [0, 0, 0, 0], [1, 3, 5, 3], [1, 1, 4, 4]], np.float32)
    expected = run(pooling_model(guard="zeros"), features, boxes, keep=[False, False, False, True])
    for guard in ("none", "zeros"):
        model = pooling_model(guard=guard)
        expand_roi_align(model)
        found = run(model, features, boxes, keep=[False, False, False, True])
        assert not found[:3].any() and found[3].any()
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_guard_goes_into_the_product_and_keeps_its_condition() -> None:
    features, boxes, keep = random_features(1, 5, HEIGHT, WIDTH), random_boxes(5), [True, False, True, True, False]
    expected = run(pooling_model(guard="zeros"), features, boxes, keep)
    model = pooling_model(guard="zeros")
    expand_roi_align(model)
    assert "Select" not in kinds(model)
    np.testing.assert_allclose(run(model, features, boxes, keep), expected, atol=1e-5)


def test_the_guard_is_known_where_weights_are_stored_as_f16(tmp_path: Path) -> None:
    ov.save_model(pooling_model(guard="zeros"), tmp_path / "model.xml", compress_to_fp16=True)
    model = shared_core().read_model(tmp_path / "model.xml")
    assert expand_roi_align(model) == 1
    assert "Select" not in kinds(model)


@pytest.mark.parametrize("guard", ["sevens", "swapped", "columns", "read twice"])
def test_another_choice_behind_it_stays(guard: str) -> None:
    features, boxes, keep = random_features(1, 5, HEIGHT, WIDTH), random_boxes(3), np.array([True, False, True])
    if guard == "columns":
        keep = np.random.default_rng(0).random((3, 1, 1, 4)) < 0.5
    expected = run(pooling_model(guard=guard), features, boxes, keep)
    model = pooling_model(guard=guard)
    assert expand_roi_align(model) == 1
    assert "Select" in kinds(model)
    np.testing.assert_allclose(run(model, features, boxes, keep), expected, atol=1e-5)


@pytest.mark.parametrize("changes", [
    {"sampling_ratio": 2}, {"spatial_scale": 0.5}, {"mode": "max"}, {"aligned_mode": "half_pixel"},
    {"size": (2, 5, HEIGHT, WIDTH)}, {"size": (1, 5, -1, WIDTH)}, {"columns": 3},
], ids=str)
def test_pooling_of_another_make_stays(changes: dict[str, Any]) -> None:
    model = pooling_model(**changes)
    assert expand_roi_align(model) == 0
    assert KIND in kinds(model)


def test_bf16_reads_the_right_cell_where_bf16_cannot_count_them() -> None:
    bins, width = 4, 300
    values = np.random.default_rng(1).integers(-100, 100, (1, 2, bins, width)).astype(np.float32)  # exact in bf16
    starts = np.array([0, 130, 257, width - bins])
    boxes = np.stack([starts, 0 * starts, starts + bins, 0 * starts + bins], axis=1).astype(np.float32)
    model = pooling_model((1, 2, bins, width), bins)
    expand_roi_align(model)
    expected = np.stack([values[0, :, :, start:start + bins] for start in starts])  # one sample a bin, on its cell
    np.testing.assert_array_equal(run(model, values, boxes, precision="bf16"), expected)


def test_bf16_pools_as_closely_as_rounded_shares_do() -> None:
    size = (1, 64, HEIGHT, WIDTH)
    features, boxes = random_features(*size), random_boxes(40)
    exact = run(pooling_model(size), features, boxes)
    model = pooling_model(size)
    expand_roi_align(model)
    error = np.sqrt(np.mean((run(model, features, boxes, precision="bf16") - exact) ** 2)) / exact.std()
    assert error < 0.004  # of numbers rounded once: 0.2 %; with rounded coordinates 2 %
