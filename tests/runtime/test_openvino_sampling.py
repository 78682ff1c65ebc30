"""Deformable convolution from standard operators against OpenVINO's own kernel."""
from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

ov = pytest.importorskip("openvino")

from stmask_deploy.runtime import openvino_sampling  # noqa: E402
from stmask_deploy.runtime.openvino_backend import shared_core  # noqa: E402
from stmask_deploy.runtime.openvino_constants import floats  # noqa: E402
from stmask_deploy.runtime.openvino_sampling import KIND, expand_deformable, keep_grids  # noqa: E402

Arrays = dict[str, NDArray[np.float32]]


def deformable_model(feeds: Arrays, weight: NDArray[np.float32], strides: list[int], pads: list[int], *,
                     dilation: int = 1) -> Any:
    """A model of one deformable convolution; `feeds` name its inputs x, offset and perhaps mask."""
    from openvino import opset8 as op

    inputs = {name: op.parameter(value.shape, np.float32, name=name) for name, value in feeds.items()}
    mask = {"mask": inputs["mask"]} if "mask" in inputs else {}
    out = op.deformable_convolution(inputs["x"], inputs["offset"], op.constant(weight), strides, pads, pads,
                                    [dilation, dilation], bilinear_interpolation_pad=True, **mask)
    return ov.Model([out], list(inputs.values()))


def run(model: Any, feeds: Arrays, precision: str = "f32") -> NDArray[np.float32]:
    compiled = shared_core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": precision})
    if compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name() != precision:
        pytest.skip(f"this CPU does not compute in {precision}")
    return np.array(compiled(feeds)[0])


def kinds(model: Any) -> set[str]:
    return {node.get_type_name() for node in model.get_ordered_ops()}


def random_case(kernel: tuple[int, int], strides: tuple[int, int], with_mask: bool, spread: float
                ) -> tuple[Arrays, NDArray[np.float32], list[int], list[int]]:
    rng = np.random.default_rng(kernel[0] * 10 + kernel[1] + strides[0])
    height, width, channels, filters = 9, 13, 6, 5
    pads = [kernel[0] // 2, kernel[1] // 2]
    out = [(size + 2 * pad - side) // stride + 1
           for size, pad, side, stride in zip((height, width), pads, kernel, strides, strict=True)]
    taps = kernel[0] * kernel[1]
    feeds = {"x": rng.standard_normal((1, channels, height, width)).astype(np.float32),
             "offset": (spread * rng.standard_normal((1, 2 * taps, *out))).astype(np.float32)}
    if with_mask:
        feeds["mask"] = rng.uniform(size=(1, taps, *out)).astype(np.float32)
    weight = rng.standard_normal((filters, channels, *kernel)).astype(np.float32)
    return feeds, weight, list(strides), pads


@pytest.mark.parametrize("kernel", [(3, 3), (3, 5), (5, 3), (1, 1), (2, 4)])
@pytest.mark.parametrize("strides", [(1, 1), (2, 3)])
@pytest.mark.parametrize("with_mask", [False, True])
@pytest.mark.parametrize("spread", [0.0, 1.5, 40.0], ids=["none", "near", "far off the map"])
def test_equals_the_kernel_in_f32(kernel: tuple[int, int], strides: tuple[int, int], with_mask: bool,
                                   spread: float) -> None:
    feeds, weight, steps, pads = random_case(kernel, strides, with_mask, spread)
    expected = run(deformable_model(feeds, weight, steps, pads), feeds)
    model = deformable_model(feeds, weight, steps, pads)
    assert expand_deformable(model) == 1
    assert KIND not in kinds(model)
    np.testing.assert_allclose(run(model, feeds), expected, atol=2e-5)


@pytest.mark.parametrize("precision, error", [("f32", 1e-5), ("bf16", 0.05)])
@pytest.mark.parametrize("cells, bands", [(200, 1), (117, 1), (116, 2), (40, 3), (25, 5), (1, 117)])
def test_bands_change_nothing_but_rounding(monkeypatch: pytest.MonkeyPatch, cells: int, bands: int, precision: str,
                                           error: float) -> None:
    feeds, weight, strides, pads = random_case((3, 3), (1, 1), True, 1.5)  # 9 x 13 cells of 9 x 6 values
    whole = deformable_model(feeds, weight, strides, pads)
    expand_deformable(whole)
    monkeypatch.setattr(openvino_sampling, "BAND", cells * 54)
    model = deformable_model(feeds, weight, strides, pads)
    expand_deformable(model)
    assert [node.get_type_name() for node in model.get_ordered_ops()].count("MatMul") == bands
    np.testing.assert_allclose(run(model, feeds, precision), run(whole, feeds, precision), atol=error)


def test_offsets_beyond_every_integer_read_zeros() -> None:
    feeds, weight, strides, pads = random_case((3, 3), (1, 1), False, 0.0)
    feeds["offset"][:] = 3e9
    feeds["offset"][:, 0::2] = -1e20
    model = deformable_model(feeds, weight, strides, pads)
    expand_deformable(model)
    np.testing.assert_array_equal(run(model, feeds), 0)


def test_bf16_reads_the_right_pixel_where_bf16_cannot_count_them() -> None:
    width, rng = 300, np.random.default_rng(0)
    x = rng.integers(-100, 100, (1, 1, 2, width)).astype(np.float32)  # whole numbers of 7 bits: exact in bf16
    offset = np.zeros((1, 2, 2, width), np.float32)
    offset[0, 1] = rng.integers(-3, 4, (2, width))
    offset[0, 1, :, -3:] = offset[0, 1, :, :3] = 0  # stays on the map
    feeds = {"x": x, "offset": offset}
    model = deformable_model(feeds, np.ones((1, 1, 1, 1), np.float32), [1, 1], [0, 0])
    expand_deformable(model)
    columns = (np.arange(width) + offset[0, 1]).astype(int)
    np.testing.assert_array_equal(run(model, feeds, "bf16")[0, 0], np.take_along_axis(x[0, 0], columns, axis=1))


def test_bf16_interpolates_as_closely_as_the_kernel_between_rounded_numbers() -> None:
    feeds, weight, strides, pads = random_case((3, 3), (1, 1), True, 1.5)
    exact = run(deformable_model(feeds, weight, strides, pads), feeds)
    model = deformable_model(feeds, weight, strides, pads)
    expand_deformable(model)
    error = np.sqrt(np.mean((run(model, feeds, "bf16") - exact) ** 2)) / exact.std()
    assert error < 0.01  # 2 to 8 % where coordinates are rounded


def int8_case(model: Any, feeds: Arrays, weight: NDArray[np.float32], strides: list[int], pads: list[int]
              ) -> NDArray[np.float32]:
    """Mark `model`'s convolution for 8 bits; returns what it computes, from the f32 kernel's samples."""
    from openvino import opset13 as op

    high = float(feeds["x"].max())
    extent = np.abs(weight).max((1, 2, 3), keepdims=True)
    node = next(node for node in model.get_ordered_ops() if node.get_type_name() == KIND)
    low, top = np.float32(0), np.float32(high)
    for place, limits, levels in ((0, (low, top), 256), (2, (-extent, extent), 255)):
        rounded = op.fake_quantize(node.input_value(place), *limits, *limits, levels)
        node.input(place).replace_source_output(rounded.output(0))
    values = weight[0].size
    samples = run(deformable_model(feeds, np.eye(values, dtype=np.float32).reshape(values, *weight.shape[1:]),
                                   strides, pads), feeds)
    rounded = np.rint(samples / high * 255) / 255 * high
    return np.einsum("ov,bvhw->bohw", (np.rint(weight / extent * 127) / 127 * extent).reshape(-1, values), rounded)


@pytest.mark.parametrize("kernel, with_mask", [((3, 3), True), ((3, 5), False)])
@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_int8_rounds_samples_and_weights_and_multiplies_integers(monkeypatch: pytest.MonkeyPatch, precision: str,
                                                                 kernel: tuple[int, int], with_mask: bool) -> None:
    feeds, weight, strides, pads = random_case(kernel, (1, 1), with_mask, 1.5)
    feeds["x"] = np.maximum(feeds["x"], 0)
    monkeypatch.setattr(openvino_sampling, "BAND", 50 * weight[0].size)  # several bands
    model = deformable_model(feeds, weight, strides, pads)
    expected = int8_case(model, feeds, weight, strides, pads)
    assert expand_deformable(model, only_int8=True) == 1
    compiled = shared_core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": precision})
    layers = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    products = [layer["runtimePrecision"].astype(str) for layer in layers
                if layer["layerType"].astype(str).startswith("FullyConnected")]
    assert len(products) == 3 and set(products) <= {"u8", "i8"}
    found = run(model, feeds, precision)
    step = feeds["x"].max() / 255 * np.abs(weight).max()  # that of a sample which lies between two numbers
    exact = run(deformable_model(feeds, weight, strides, pads), feeds)
    if precision == "f32":
        assert np.abs(found - expected).max() < 2 * step and np.median(np.abs(found - expected)) < 1e-5
        assert np.median(np.abs(found - exact)) > 1e-3
    else:
        assert np.abs(found - expected).max() < 0.02 * exact.std() + 5 * step


def test_what_is_not_marked_for_8_bits_may_be_left() -> None:
    feeds, weight, strides, pads = random_case((3, 3), (1, 1), False, 1.0)
    model = deformable_model(feeds, weight, strides, pads)
    assert expand_deformable(model, only_int8=True) == 0 and KIND in kinds(model)
    assert expand_deformable(model) == 1


@pytest.mark.parametrize("place", [0, 2])
def test_one_operand_in_8_bits_is_not_enough(place: int) -> None:
    from openvino import opset13 as op

    feeds, weight, strides, pads = random_case((3, 3), (1, 1), False, 1.0)
    model = deformable_model(feeds, weight, strides, pads)
    node = next(node for node in model.get_ordered_ops() if node.get_type_name() == KIND)
    limits = [np.float32(-3), np.float32(3)] * 2
    node.input(place).replace_source_output(op.fake_quantize(node.input_value(place), *limits, 255).output(0))
    assert expand_deformable(model, only_int8=True) == 0


def test_convolutions_of_another_make_stay() -> None:
    feeds, weight, strides, _ = random_case((3, 3), (1, 1), False, 1.0)
    feeds["offset"] = np.zeros((1, 18, 9, 13), np.float32)
    model = deformable_model(feeds, weight, strides, [2, 2], dilation=2)
    assert expand_deformable(model) == 0
    assert KIND in kinds(model)


@pytest.mark.parametrize("stored", ["f16", "bf16", "computed"])
def test_weights_may_be_stored_as_f16_but_not_otherwise(stored: str) -> None:
    from openvino import opset13 as op

    feeds, weight, strides, pads = random_case((3, 3), (1, 1), False, 1.0)
    model = deformable_model(feeds, weight, strides, pads)
    expected = run(model, feeds)
    node = next(node for node in model.get_ordered_ops() if node.get_type_name() == KIND)
    source = {"f16": lambda: op.convert(op.constant(weight.astype(np.float16)), "f32"),
              "bf16": lambda: op.convert(floats(weight, "bf16"), "f32"),
              "computed": lambda: op.exp(op.log(op.constant(weight)))}[stored]()
    node.input(2).replace_source_output(source.output(0))
    assert expand_deformable(model) == (stored == "f16")
    if stored != "computed":  # the logarithm of negative weights is none
        np.testing.assert_allclose(run(model, feeds), expected, atol=0.05 if stored == "f16" else 0.4)


def test_the_graph_keeps_names_and_what_else_it_computes() -> None:
    feeds, weight, strides, pads = random_case((3, 3), (1, 1), False, 1.0)
    model = deformable_model(feeds, weight, strides, pads)
    model.outputs[0].get_tensor().set_names({"out"})
    expand_deformable(model)
    assert model.output("out").get_partial_shape().to_shape() == ov.Shape([1, 5, 9, 13])
    assert expand_deformable(model) == 0


def grid_model(size: tuple[int, int, int, int], cells: int) -> Any:
    """x and columns (1, cells) -> x (1, C, 1, cells) at these columns of its first row."""
    from openvino import opset13 as op

    x, column = op.parameter(size, np.float32, name="x"), op.parameter([1, cells], np.float32, name="column")
    across = op.subtract(op.multiply(op.add(column, np.float32(0.5)), np.float32(2 / size[3])), np.float32(1))
    across = op.reshape(across, op.constant(np.array([1, 1, cells, 1])), special_zero=False)
    down = op.constant(np.full((1, 1, cells, 1), 1 / size[2] - 1, np.float32))
    sampled = op.grid_sample(x, op.concat([across, down], -1), {"align_corners": False, "mode": "bilinear",
                                                                "padding_mode": "zeros"})
    same = np.eye(size[1], dtype=np.float32)[:, :, None, None]  # the heavy operation behind it
    out = op.convolution(sampled, op.constant(same), [1, 1], [0, 0], [0, 0], [1, 1])
    return ov.Model([out], [x, column])


def test_grids_are_kept_in_f32() -> None:
    width, rng = 1000, np.random.default_rng(0)
    x = rng.integers(-100, 100, (1, 2, 4, width)).astype(np.float32)
    column = rng.integers(0, width, (1, 50)).astype(np.float32)
    feeds, expected = {"x": x, "column": column}, x[:, :, :1, column[0].astype(int)]
    assert np.abs(run(grid_model(x.shape, 50), feeds, "bf16") - expected).max() > 50  # other cells
    model = grid_model(x.shape, 50)
    assert keep_grids(model) == 1
    np.testing.assert_allclose(run(model, feeds, "bf16"), expected, atol=0.5)  # bf16 of numbers up to 100


def test_a_model_without_grids_is_left_as_it_is() -> None:
    feeds, weight, strides, pads = random_case((3, 3), (1, 1), False, 1.0)
    model = deformable_model(feeds, weight, strides, pads)
    assert keep_grids(model) == 0 and len(model.outputs) == 1
