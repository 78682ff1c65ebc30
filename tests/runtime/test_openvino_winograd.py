"""Convolutions as matrix products against OpenVINO's own."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

ov = pytest.importorskip("openvino")

from stmask_deploy.runtime import winograd  # noqa: E402
from stmask_deploy.runtime.openvino_backend import shared_core  # noqa: E402
from stmask_deploy.runtime.openvino_winograd import expand_convolutions  # noqa: E402
from stmask_deploy.runtime.winograd import FEWEST_CHANNELS  # noqa: E402

Array = NDArray[np.float32]
Build = Callable[[Any, Any], Any]  # of opset and input: the output
WIDE = 128  # channels, as few as are worth it
COLUMNS = 10  # tile columns per block


def random(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng((seed, *shape)).standard_normal(shape).astype(np.float32)


def weights(filters: int = WIDE, channels: int = WIDE, kernel: tuple[int, int] = (3, 3), seed: int = 0) -> Array:
    return random(filters, channels, *kernel, seed=seed) / np.float32(np.sqrt(channels * 9))


def convolved(op: Any, x: Any, weight: Any = None, strides: int = 1, pads: int = 1, dilations: int = 1) -> Any:
    weight = op.constant(weights()) if weight is None else weight
    return op.convolution(x, weight, [strides] * 2, [pads] * 2, [pads] * 2, [dilations] * 2)


def biased(op: Any, x: Any, channels: int = WIDE) -> Any:
    return op.add(x, op.constant(random(1, channels, 1, 1)))


def make(build: Build, shape: Any) -> Any:
    from openvino import opset13 as op

    x = op.parameter(shape, np.float32, name="x")
    y = build(op, op.negative(x))
    y.set_friendly_name("y")
    y.output(0).get_tensor().set_names({"out"})
    return ov.Model([y], [x])


def run(model: Any, x: Array, precision: str = "f32") -> Array:
    compiled = shared_core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": precision})
    if compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name() != precision:
        pytest.skip(f"this CPU does not compute in {precision}")
    return np.array(compiled([x])["out"])


def kinds(model: Any) -> list[str]:
    return [node.get_type_name() for node in model.get_ordered_ops()]


def check(build: Build, shape: Any, inputs: Array, count: int = 1, left: int = 0, columns: int = COLUMNS) -> None:
    """`count` are replaced, `left` stay, and the output is what it was."""
    expected = run(make(build, shape), inputs)
    model = make(build, shape)
    before = model.outputs[0].get_partial_shape()
    assert expand_convolutions(model, "f32", columns) == count
    assert kinds(model).count("Convolution") == left
    model.validate_nodes_and_infer_types()
    after = model.outputs[0].get_partial_shape()
    assert after.compatible(before) and [size.is_static for size in after] == [size.is_static for size in before]
    found = run(model, inputs)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=2e-5 * max(np.abs(expected).max(initial=0), 1e-3))


def plain(op: Any, x: Any) -> Any:
    return op.negative(convolved(op, x))


@pytest.mark.parametrize("size", [
    (16, 16), (7, 40), (13, 16), (48, 44), (50, 21), (97, 5), (3, 100), (1, 90), (10, 10), (90, 84), (8, 330),
    (32, 400),
], ids=str)
def test_maps_of_a_known_size(size: tuple[int, int]) -> None:
    tiles = -(-size[0] // 4) * -(-size[1] // 4)
    is_small = tiles < 16
    for columns in (5, COLUMNS):
        check(plain, [1, WIDE, *size], random(1, WIDE, *size), count=not is_small, left=is_small, columns=columns)


@pytest.mark.parametrize(("columns", "cells"), [(5, 22), (10, 42), (20, 82)])
def test_blocks_have_so_many_columns(columns: int, cells: int) -> None:
    """Each reads the cells of its tiles and one more on either side."""
    model = make(plain, [1, WIDE, 16, 320])
    expand_convolutions(model, "f32", columns)
    last = {tuple(node.get_shape())[-1] for node in model.get_ordered_ops()
            if node.get_type_name() == "Constant" and node.get_element_type() == ov.Type.f32}
    assert cells in last


def test_large_maps_are_computed_in_bands() -> None:
    model = make(plain, [1, WIDE, 90, 84])
    expand_convolutions(model, "f32", COLUMNS)
    assert kinds(model).count("MatMul") == 5 * 8  # of each, to points and back by rows and columns, and with weights


@pytest.mark.parametrize("size", [(8, 16), (9, 17), (1, 1), (4, 40), (30, 5), (16, 32)], ids=str)
def test_maps_of_any_size(size: tuple[int, int]) -> None:
    check(plain, [1, WIDE, -1, -1], random(1, WIDE, *size))


def upsampled(op: Any, x: Any, mode: str = "linear_onnx", place: str = "half_pixel", scales: Any = (1, 1, 2, 2),
              **settings: Any) -> Any:
    return op.interpolate(x, op.constant(np.array(scales, np.float32)), mode, "scales",
                          coordinate_transformation_mode=place, **settings)


def upsampling(after: Callable[[Any, Any], Any] = lambda op, x: x, **settings: Any) -> Build:
    """A ReLU, an upsampling and whatever comes `after` it, and a convolution."""
    return lambda op, x: op.negative(convolved(op, after(op, upsampled(op, op.relu(x), **settings))))


@pytest.mark.parametrize("size", [(8, 8), (6, 20), (48, 80), (24, 40), (1, 160), (7, 7), (26, 68), (72, 128)], ids=str)
@pytest.mark.parametrize("build", [upsampling(), upsampling(lambda op, x: op.relu(x))], ids=["", "ReLU"])
def test_an_upsampled_map_is_read_before_it_is_upsampled(size: tuple[int, int], build: Build) -> None:
    check(build, [1, WIDE, *size], random(1, WIDE, *size))
    model = make(build, [1, WIDE, *size])
    expand_convolutions(model, "f32", COLUMNS)
    assert "Interpolate" not in kinds(model) and kinds(model).count("Relu") == 1


def test_several_upsampled_maps() -> None:
    check(upsampling(), [2, WIDE, 10, 12], random(2, WIDE, 10, 12))
    check(upsampling(), [-1, WIDE, 10, 12], random(3, WIDE, 10, 12))
    check(upsampling(), [2, WIDE, 5, 5], random(2, WIDE, 5, 5))  # small enough for one matrix


def test_a_chain_goes_on_through_an_upsampling() -> None:
    """As in ProtoNet: two transpositions in all."""
    def build(op: Any, x: Any) -> Any:
        first = op.relu(biased(op, convolved(op, x)))
        return op.negative(op.relu(convolved(op, op.relu(upsampled(op, first)), op.constant(weights(seed=1)))))

    check(build, [1, WIDE, 24, 20], random(1, WIDE, 24, 20), count=2)
    model = make(build, [1, WIDE, 24, 20])
    expand_convolutions(model, "f32", COLUMNS)
    assert "Interpolate" not in kinds(model)
    assert kinds(model).count("Transpose") == 2 + 3  # one between columns and rows in each of three bands


def test_an_upsampled_map_that_others_read_too_is_made() -> None:
    def build(op: Any, x: Any) -> Any:
        y = upsampled(op, x)
        return op.add(convolved(op, y), y)

    check(build, [1, WIDE, 8, 20], random(1, WIDE, 8, 20))


def sized(op: Any, x: Any) -> Any:
    """By sizes, which do not tell a scale of 2 from one of a little more."""
    y = op.interpolate(x, op.constant(np.array([1, WIDE, 16, 16])), "linear_onnx", "sizes")
    return op.negative(convolved(op, y))


def computed_scales(op: Any, x: Any) -> Any:
    scales = op.sqrt(op.constant(np.array([1, 1, 4, 4], np.float32)))
    return op.negative(convolved(op, op.interpolate(x, scales, "linear_onnx", "scales")))


def of_the_first_opset(op: Any, x: Any) -> Any:
    from openvino import opset1

    how = {"axes": [2, 3], "mode": "linear", "align_corners": False}
    return op.negative(convolved(op, opset1.interpolate(x, op.constant(np.array([16, 16])), how)))


@pytest.mark.parametrize("build", [
    upsampling(mode="nearest"), upsampling(place="align_corners"), upsampling(place="asymmetric"),
    upsampling(scales=(1, 1, 3, 3)), upsampling(scales=(1, 1, 2, 3)), upsampling(scales=(1, 1, 2.05, 2.05)),
    upsampling(pads_begin=[0, 0, 2, 2], pads_end=[0] * 4), upsampling(pads_begin=[0] * 4, pads_end=[0, 0, 2, 2]),
    upsampling(lambda op, x: op.sigmoid(x)), lambda op, x: op.negative(convolved(op, op.relu(upsampled(op, x)))),
    sized, computed_scales, of_the_first_opset,
], ids=["nearest", "corners", "asymmetric", "threefold", "twofold and threefold", "a little more", "padding before",
        "padding after", "sigmoid", "ReLU of signs", "sizes", "computed scales", "opset 1"])
def test_other_maps_are_made_before_they_are_read(build: Build) -> None:
    check(build, [1, WIDE, 8, 8], random(1, WIDE, 8, 8))
    model = make(build, [1, WIDE, 8, 8])
    expand_convolutions(model, "f32", COLUMNS)
    assert "Interpolate" in kinds(model)


def test_an_upsampled_map_in_which_no_blocks_fit_is_made() -> None:
    build = upsampling()
    check(build, [1, WIDE, 45, 80], random(1, WIDE, 45, 80))
    model = make(build, [1, WIDE, 45, 80])
    expand_convolutions(model, "f32", COLUMNS)
    assert "Interpolate" in kinds(model)


def test_nodes_may_share_their_names() -> None:
    def build(op: Any, x: Any) -> Any:
        for seed in range(3):
            weight = op.constant(weights(seed=seed))
            weight.set_friendly_name("weight")
            x = op.relu(convolved(op, x, weight))
            x.set_friendly_name("map")
        return op.negative(x)

    check(build, [1, WIDE, 16, 20], random(1, WIDE, 16, 20), count=3)


def test_upsampled_maps_of_any_size_are_made() -> None:
    check(upsampling(), [1, WIDE, -1, -1], random(1, WIDE, 9, 20))


@pytest.mark.parametrize("count", [0, 1, 2, 5])
@pytest.mark.parametrize("size", [(7, 7), (5, 3), (14, 18)], ids=str)
def test_any_number_of_maps(count: int, size: tuple[int, int]) -> None:
    check(plain, [-1, WIDE, *size], random(count, WIDE, *size))


@pytest.mark.parametrize("shape", [[1, WIDE, 16, 16], [-1, WIDE, 16, 16]], ids=str)
def test_an_output_of_the_model_keeps_its_name(shape: Any) -> None:
    check(lambda op, x: op.relu(convolved(op, x)), shape, random(1, WIDE, 16, 16))
    check(convolved, shape, random(1, WIDE, 16, 16))


def test_several_maps_of_a_known_number() -> None:
    check(plain, [4, WIDE, 7, 7], random(4, WIDE, 7, 7))
    check(plain, [3, WIDE, 16, 16], random(3, WIDE, 16, 16))


def test_what_follows_is_done_where_the_map_is() -> None:
    """As in a tower of a head: one transposition at each end, none between."""
    def build(op: Any, x: Any) -> Any:
        for seed in range(3):
            x = op.relu(biased(op, convolved(op, x, op.constant(weights(seed=seed)))))
        return op.negative(convolved(op, x, op.constant(weights(20, kernel=(1, 1))), pads=0))

    check(build, [1, WIDE, 24, 20], random(1, WIDE, 24, 20), count=3)
    model = make(build, [1, WIDE, 24, 20])
    expand_convolutions(model, "f32", COLUMNS)
    plain_model = make(plain, [1, WIDE, 24, 20])
    expand_convolutions(plain_model, "f32", COLUMNS)
    inner = kinds(plain_model).count("Transpose") - 2  # of each convolution, around its products
    assert kinds(model).count("Transpose") == 2 + 3 * inner


def test_the_mean_of_each_map() -> None:
    def build(op: Any, x: Any) -> Any:
        y = op.relu(biased(op, convolved(op, x)))
        return op.negative(op.reduce_mean(y, op.constant(np.array([3, 2])), keep_dims=False))

    for count in (0, 1, 4):
        x = random(count, WIDE, 7, 7)
        model = make(build, [-1, WIDE, 7, 7])
        assert expand_convolutions(model, "f32", COLUMNS) == 1
        assert run(model, x).shape == (count, WIDE)
    check(build, [-1, WIDE, 7, 7], random(4, WIDE, 7, 7))


@pytest.mark.parametrize("axes, keep", [([2], False), ([2, 3], True), ([1, 2], False)])
def test_other_means_read_the_map_as_it_was(axes: list[int], keep: bool) -> None:
    def build(op: Any, x: Any) -> Any:
        return op.negative(op.reduce_mean(convolved(op, x), op.constant(np.array(axes)), keep_dims=keep))

    check(build, [1, WIDE, 16, 16], random(1, WIDE, 16, 16))


def test_values_that_several_read() -> None:
    def build(op: Any, x: Any) -> Any:
        first = op.relu(convolved(op, x))
        second = op.relu(biased(op, convolved(op, first)))
        return op.add(op.multiply(first, second), op.add(second, op.negative(x)))

    check(build, [1, WIDE, 16, 20], random(1, WIDE, 16, 20), count=2)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, WIDE, 16, 16), (1, 1, 16, 1), (16, 1)], ids=str)
def test_what_is_added_may_be_no_bias(shape: tuple[int, ...]) -> None:
    def build(op: Any, x: Any) -> Any:
        return op.negative(op.add(op.constant(random(*shape)), convolved(op, x)))

    check(build, [1, WIDE, 16, 16], random(1, WIDE, 16, 16))


def test_what_is_added_may_have_any_number_of_maps_too() -> None:
    check(lambda op, x: op.negative(op.add(convolved(op, x), x)), [-1, WIDE, 7, 7], random(3, WIDE, 7, 7))


def test_a_value_that_is_added_to_itself() -> None:
    def build(op: Any, x: Any) -> Any:
        y = convolved(op, x)
        return op.negative(op.add(y, y))

    check(build, [1, WIDE, 16, 16], random(1, WIDE, 16, 16))


def test_pyramids_share_their_weights() -> None:
    def build(op: Any, x: Any) -> Any:
        weight = op.constant(weights())
        pooled = op.max_pool(x, [2, 2], [1, 1], [0, 0], [0, 0], [2, 2], "floor", "explicit").output(0)
        parts = [op.reduce_sum(convolved(op, level, weight), op.constant(np.array([2, 3])), keep_dims=False)
                 for level in (x, pooled)]
        return op.concat(parts, 0)

    check(build, [1, WIDE, 32, 40], random(1, WIDE, 32, 40), count=2)
    model = make(build, [1, WIDE, 32, 40])
    expand_convolutions(model, "f32", COLUMNS)
    assert sum(node.get_type_name() == "Constant" and list(node.get_output_shape(0)) == [36, WIDE, WIDE]
               for node in model.get_ordered_ops()) == 1


def test_weights_that_are_stored_as_f16() -> None:
    def build(op: Any, x: Any) -> Any:
        return op.negative(convolved(op, x, op.convert(op.constant(weights().astype(np.float16)), "f32")))

    check(build, [1, WIDE, 16, 16], random(1, WIDE, 16, 16))


def reshaped_bias(op: Any, x: Any) -> Any:
    """As OpenVINO converts an ONNX convolution with a bias on any number of maps."""
    y = convolved(op, x)
    rank = op.shape_of(op.shape_of(y, "i64"), "i64")
    ones = op.broadcast(op.constant(np.int64(1)), op.subtract(rank, op.constant(np.array([2]))))
    shape = op.concat([op.constant(np.array([1, WIDE])), ones], 0)
    return op.negative(op.relu(op.add(y, op.reshape(op.constant(random(WIDE)), shape, special_zero=False))))


def test_biases_whose_shape_is_computed_from_what_they_are_added_to() -> None:
    check(reshaped_bias, [-1, WIDE, 7, 7], random(4, WIDE, 7, 7))
    model = make(reshaped_bias, [-1, WIDE, 7, 7])
    expand_convolutions(model, "f32", COLUMNS)
    assert kinds(model).count("Transpose") == 2 and "ShapeOf" not in kinds(model)  # one at each end of the chain


def test_what_reads_the_shape_for_something_else() -> None:
    def build(op: Any, x: Any) -> Any:
        y = convolved(op, x)
        count = op.gather(op.shape_of(y, "i64"), op.constant(np.array([0])), op.constant(np.int64(0)))
        return op.multiply(op.relu(y), op.convert(count, "f32"))

    check(build, [-1, WIDE, 7, 7], random(3, WIDE, 7, 7))


def test_a_convolution_that_two_read_is_computed_once() -> None:
    def build(op: Any, x: Any) -> Any:
        y = convolved(op, x)
        return op.add(op.relu(y), op.sigmoid(y))

    check(build, [1, WIDE, 16, 16], random(1, WIDE, 16, 16))


@pytest.mark.parametrize("settings", [{"strides": 2, "pads": 0}, {"pads": 1}], ids=str)
def test_a_1x1_convolution_that_is_no_product_of_channels(settings: dict[str, int]) -> None:
    def build(op: Any, x: Any) -> Any:
        return op.negative(convolved(op, convolved(op, x), op.constant(weights(20, kernel=(1, 1))), **settings))

    check(build, [1, WIDE, 16, 20], random(1, WIDE, 16, 20), left=1)


def test_a_1x1_convolution_of_computed_weights() -> None:
    def build(op: Any, x: Any) -> Any:
        total = op.reduce_max(op.abs(x), op.constant(np.array([0, 1, 2, 3])), keep_dims=True)
        weight = op.multiply(op.constant(weights(20, kernel=(1, 1))), total)
        return op.negative(convolved(op, convolved(op, x), weight, pads=0))

    check(build, [1, WIDE, 16, 20], random(1, WIDE, 16, 20), left=1)


def left_alone() -> dict[str, Build]:
    def other(**settings: int) -> Build:
        return lambda op, x: op.negative(convolved(op, x, **settings))

    def of(*shape: int) -> Build:
        def build(op: Any, x: Any) -> Any:
            return op.negative(convolved(op, x, op.constant(random(*shape))))
        return build

    def computed(op: Any, x: Any) -> Any:
        return op.negative(convolved(op, x, op.multiply(op.constant(weights()), op.reduce_max(
            op.abs(x), op.constant(np.array([0, 1, 2, 3])), keep_dims=True))))

    def grouped(op: Any, x: Any) -> Any:
        weight = op.constant(random(2, 64, 64, 3, 3))
        return op.negative(op.group_convolution(x, weight, [1, 1], [1, 1], [1, 1], [1, 1]))

    def one_sided(op: Any, x: Any) -> Any:
        return op.negative(op.convolution(x, op.constant(weights()), [1, 1], [1, 1], [1, 2], [1, 1]))

    return {"strides": other(strides=2), "no padding": other(pads=0), "more padding": other(pads=2),
            "dilation": other(dilations=2), "1x1": of(WIDE, WIDE, 1, 1), "5x5": of(WIDE, WIDE, 5, 5),
            "3x5": of(WIDE, WIDE, 3, 5), "few filters": of(WIDE - 1, WIDE, 3, 3), "computed weights": computed,
            "groups": grouped, "padding of one side": one_sided}


@pytest.mark.parametrize("name", left_alone())
def test_leaves_alone(name: str) -> None:
    build = left_alone()[name]
    model = make(build, [1, WIDE, 20, 16])
    before = kinds(model)
    assert expand_convolutions(model, "f32", COLUMNS) == 0
    assert sorted(kinds(model)) == sorted(before)


def test_leaves_few_channels_alone() -> None:
    model = make(lambda op, x: op.negative(convolved(op, x, op.constant(random(WIDE, 64, 3, 3)))), [1, 64, 20, 16])
    assert expand_convolutions(model, "f32", COLUMNS) == 0


def test_leaves_f16_alone() -> None:
    from openvino import opset13 as op

    x = op.parameter([1, WIDE, 16, 16], np.float16)
    model = ov.Model([op.negative(convolved(op, x, op.constant(weights().astype(np.float16))))], [x])
    assert expand_convolutions(model, "f32", COLUMNS) == 0


def test_keeps_other_weights_as_they_are_stored() -> None:
    def build(op: Any, x: Any) -> Any:
        def stored(*shape: int) -> Any:
            return op.convert(op.constant(random(*shape).astype(np.float16)), "f32")

        return op.negative(convolved(op, convolved(op, x, stored(WIDE, WIDE, 3, 3)), stored(20, WIDE, 3, 3)))

    model = make(build, [1, WIDE, 16, 16])
    assert expand_convolutions(model, "f32", COLUMNS) == 1
    assert kinds(model).count("Convert") == 1


def test_leaves_a_convolution_of_rows_alone() -> None:
    def build(op: Any, x: Any) -> Any:
        return op.negative(op.convolution(x, op.constant(random(WIDE, WIDE, 3)), [1], [1], [1], [1]))

    assert expand_convolutions(make(build, [1, WIDE, 200]), "f32", COLUMNS) == 0


def wide(op: Any, x: Any) -> Any:
    return op.negative(convolved(op, x, op.constant(weights(512, 512))))


def test_in_bf16_layers_have_to_be_wide_and_maps_of_a_known_size() -> None:
    assert expand_convolutions(make(plain, [-1, WIDE, 7, 7]), "bf16", COLUMNS) == 0
    assert expand_convolutions(make(wide, [-1, 512, 7, 7]), "bf16", COLUMNS) == 1
    assert expand_convolutions(make(wide, [1, 512, -1, -1]), "bf16", COLUMNS) == 0


def test_names_stay() -> None:
    def build(op: Any, x: Any) -> Any:
        y = op.relu(convolved(op, x))
        y.set_friendly_name("the map")
        return op.negative(y)

    model = make(build, [1, WIDE, 16, 16])
    expand_convolutions(model, "f32", COLUMNS)
    assert "the map" in {node.get_friendly_name() for node in model.get_ordered_ops()}


def test_a_second_time_changes_nothing() -> None:
    model = make(plain, [1, WIDE, 16, 16])
    assert expand_convolutions(model, "f32", COLUMNS) == 1
    assert expand_convolutions(model, "f32", COLUMNS) == 0


def test_in_bf16_the_error_is_that_of_eight_bits() -> None:
    x = random(5, 512, 7, 7)
    exact = run(make(wide, [-1, 512, 7, 7]), x)
    model = make(wide, [-1, 512, 7, 7])
    assert expand_convolutions(model, "bf16", COLUMNS) == 1
    found = run(model, x, "bf16")
    assert 0.001 < np.sqrt(np.mean((found - exact) ** 2) / np.mean(exact ** 2)) < 0.02


def test_in_bf16_weights_are_kept_in_two_bytes() -> None:
    model = make(wide, [-1, 512, 7, 7])
    expand_convolutions(model, "bf16", COLUMNS)
    [stored] = [node.get_element_type().get_type_name() for node in model.get_ordered_ops()
                if node.get_type_name() == "Constant" and list(node.get_output_shape(0)) == [36, 512, 512]]
    assert stored == "bf16"


@pytest.mark.parametrize("stored", [np.float32, np.float16], ids=["f32", "f16"])
def test_in_bf16_a_whole_chain_stays_within_its_error(monkeypatch: pytest.MonkeyPatch, stored: type) -> None:
    """Biases, a pointwise convolution and a mean, with outputs and shapes of f32."""
    def build(op: Any, x: Any) -> Any:
        def weight(*sizes: Any, **settings: Any) -> Any:
            values = op.constant(weights(*sizes, **settings).astype(stored))
            return values if stored is np.float32 else op.convert(values, "f32")

        for seed in range(2):
            x = op.relu(biased(op, convolved(op, x, weight(seed=seed))))
        pointwise = biased(op, convolved(op, x, weight(20, kernel=(1, 1)), pads=0), 20)
        mean = op.reduce_mean(op.relu(biased(op, convolved(op, x, weight(seed=3)))), op.constant(np.array([2, 3])),
                              keep_dims=False)
        flat = op.reshape(pointwise, op.constant(np.array([0, -1])), special_zero=True)
        return op.concat([flat, mean], 1)

    x = random(3, WIDE, 9, 8)
    exact, of_plugin = (run(make(build, [-1, WIDE, 9, 8]), x, precision) for precision in ("f32", "bf16"))
    monkeypatch.setitem(FEWEST_CHANNELS, "bf16", WIDE)
    model = make(build, [-1, WIDE, 9, 8])
    assert expand_convolutions(model, "bf16", COLUMNS) == 3
    found = run(model, x, "bf16")
    for part in (slice(0, 20 * 72), slice(20 * 72, None)):
        spread = exact[:, part].std()
        errors = [np.sqrt(np.mean((values[:, part] - exact[:, part]) ** 2)) / spread for values in (of_plugin, found)]
        assert errors[1] < min(4 * errors[0], 0.02)


def test_in_bf16_parameters_are_rounded_to_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO's own conversion of constants rounds a quarter of all values the wrong way."""
    monkeypatch.setitem(FEWEST_CHANNELS, "bf16", WIDE)
    pointwise = weights(20, kernel=(1, 1))
    first, second = np.zeros((1, WIDE, 1, 1), np.float32), random(1, WIDE, 1, 1, seed=5)
    first[0, 7] = 1  # the only channel that is not zero

    def build(op: Any, x: Any) -> Any:
        def constant_map(bias: Array) -> Any:
            nothing = op.constant(np.zeros((WIDE, WIDE, 3, 3), np.float32))
            return op.add(convolved(op, x, nothing), op.constant(bias))

        chosen = convolved(op, op.relu(constant_map(first)), op.constant(pointwise), pads=0)
        return op.concat([op.negative(chosen), op.negative(constant_map(second))], 1)

    model = make(build, [1, WIDE, 16, 16])
    assert expand_convolutions(model, "bf16", COLUMNS) == 2
    found = run(model, random(1, WIDE, 16, 16), "bf16")
    expected = np.concatenate([pointwise[:, 7].ravel(), second.ravel()])
    bits = expected.view(np.uint32)
    nearest = np.where(bits % 65536 > 32768, bits + 65536, bits) // 65536 * 65536  # no ties among these
    np.testing.assert_array_equal(found[0, :, 3, 5], -nearest.astype(np.uint32).view(np.float32))


def computed_bias(op: Any, x: Any) -> Any:
    highest = op.reduce_max(x, op.constant(np.array([0, 2, 3])), keep_dims=True)  # (1, C, 1, 1)
    return op.negative(op.add(convolved(op, x), highest))


def read_by_others(op: Any, x: Any) -> Any:
    first = op.relu(convolved(op, x))
    return op.add(op.multiply(first, op.relu(biased(op, convolved(op, first)))), op.sigmoid(first))


@pytest.mark.parametrize("build, maps", [(computed_bias, 1), (reshaped_bias, 3), (read_by_others, 2)])
def test_in_bf16_what_follows_keeps_its_meaning(monkeypatch: pytest.MonkeyPatch, build: Build, maps: int) -> None:
    shape = [1 if build is computed_bias else -1, WIDE, 9, 16]
    x = random(maps, WIDE, 9, 16)
    exact = run(make(build, shape), x)
    monkeypatch.setitem(FEWEST_CHANNELS, "bf16", WIDE)
    model = make(build, shape)
    before = kinds(model).count("Convolution")
    monkeypatch.setattr(winograd, "FEWEST_TILES", 1)
    assert expand_convolutions(model, "bf16", COLUMNS) == before
    assert np.sqrt(np.mean((run(model, x, "bf16") - exact) ** 2) / np.mean(exact ** 2)) < 0.03
    if shape[0] < 0:
        assert run(model, x[:0], "bf16").shape == (0, *exact.shape[1:])


def test_layers_in_8_bits_stay_between_those_that_are_replaced() -> None:
    def build(op: Any, x: Any) -> Any:
        extent = np.abs(weights(seed=1)).max((1, 2, 3), keepdims=True)
        rounded = op.fake_quantize(op.constant(weights(seed=1)), -extent, extent, -extent, extent, 255)
        limits = [np.float32(-8), np.float32(8)] * 2
        y = op.relu(convolved(op, x))
        y = op.relu(convolved(op, op.fake_quantize(y, *limits, 256), rounded))
        return convolved(op, y, op.constant(weights(seed=2)))

    inputs = random(1, WIDE, 24, 40)
    expected = run(make(build, inputs.shape), inputs)
    model = make(build, inputs.shape)
    assert expand_convolutions(model, "f32", COLUMNS) == 2
    assert kinds(model).count("Convolution") == 1
    found = run(model, inputs)
    # Values that lie between two levels may be rounded apart.
    assert np.sqrt(np.mean((found - expected) ** 2)) < 0.01 * expected.std()
