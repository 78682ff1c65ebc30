"""Deformable convolutions marked for 8 bits, against figures computed by hand."""
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

ov = pytest.importorskip("openvino")

from stmask_deploy.export.int8_deformable import SMALLEST, quantize_deformable  # noqa: E402
from stmask_deploy.runtime.openvino_backend import shared_core  # noqa: E402

SIZE = (1, 2, 4, 5)
RNG = np.random.default_rng(0)
WEIGHT = RNG.standard_normal((3, 2, 3, 3)).astype(np.float32)
OFFSET = RNG.standard_normal((1, 18, 4, 5)).astype(np.float32)


def make_model(*, with_relu: bool = True, weight: Any = WEIGHT, is_stored: bool = True) -> Any:
    from openvino import opset13 as op

    x, offset = op.parameter(SIZE, np.float32, name="x"), op.parameter(OFFSET.shape, np.float32, name="offset")
    source = op.relu(x) if with_relu else x
    node = op.constant(weight) if is_stored else op.negative(op.constant(weight))
    out = op.deformable_convolution(source, offset, node, [1, 1], [1, 1], [1, 1], [1, 1],
                                    bilinear_interpolation_pad=True)
    out.set_friendly_name("deformed")
    return ov.Model([out], [x, offset])


def feeds_with(*largest: float) -> list[dict[str, Any]]:
    """One input each, whose largest value is given and whose smallest one is -9."""
    return [{"x": np.linspace(-9, value, 40, dtype=np.float32).reshape(SIZE), "offset": OFFSET} for value in largest]


def run(model: Any, feed: dict[str, Any]) -> Any:
    return np.array(shared_core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(feed)[0])


def limits(model: Any, place: int) -> list[Any]:
    [node] = [node for node in model.get_ordered_ops() if node.get_type_name() == "DeformableConvolution"]
    rounded = node.input_value(place).get_node()
    assert rounded.get_type_name() == "FakeQuantize"
    return [rounded.get_attributes()["levels"], *(value.get_node().data for value in rounded.input_values()[1:])]


def test_limits_are_those_of_the_inputs_and_the_weights() -> None:
    model, copy = make_model(), make_model()
    assert quantize_deformable(copy, model, feeds_with(1.0, 2.0, 6.0)) == {"deformed"}
    levels, *ends = limits(copy, 0)
    assert levels == 256 and [float(end) for end in ends] == pytest.approx([0, 3, 0, 3])
    levels, *ends = limits(copy, 2)
    extent = np.abs(WEIGHT).reshape(3, -1).max(1)
    assert levels == 255
    for end, sign in zip(ends, (-1, 1, -1, 1), strict=True):
        np.testing.assert_array_equal(end.ravel(), sign * extent)
    assert [node.get_type_name() for node in model.get_ordered_ops()].count("FakeQuantize") == 0
    assert [port.get_node().get_friendly_name() for port in model.outputs[0].node.input_values()] == ["deformed"]


def test_results_stay_close() -> None:
    [feed] = feeds_with(1.0)
    model, copy = make_model(), make_model()
    quantize_deformable(copy, model, [feed])
    exact, found = run(model, feed), run(copy, feed)
    assert 0 < np.abs(found - exact).max() < 0.02 * np.ptp(exact)


def test_filters_of_zeros_stay_zero() -> None:
    weight = WEIGHT.copy()
    weight[1] = 0
    copy = make_model(weight=weight)
    quantize_deformable(copy, make_model(weight=weight), feeds_with(1.0))
    assert limits(copy, 2)[2].ravel()[1] == SMALLEST == np.finfo(np.float16).tiny
    found = run(copy, feeds_with(1.0)[0])
    assert np.isfinite(found).all() and not found[:, 1].any() and found[:, 0].any()


@pytest.mark.parametrize("how", [{"with_relu": False}, {"is_stored": False}])
def test_maps_that_may_be_negative_and_computed_weights_stay_in_float(how: dict[str, bool]) -> None:
    copy = make_model(**how)
    assert quantize_deformable(copy, make_model(**how), feeds_with(1.0)) == set()
    assert "FakeQuantize" not in {node.get_type_name() for node in copy.get_ordered_ops()}


def test_a_map_that_is_always_zero_stays_in_float() -> None:
    assert quantize_deformable(make_model(), make_model(), feeds_with(-1.0)) == set()


def test_each_has_its_own_limit() -> None:
    from openvino import opset13 as op

    def model_of_three() -> Any:
        x, offset = op.parameter(SIZE, np.float32, name="x"), op.parameter(OFFSET.shape, np.float32, name="offset")
        outs = []
        for factor in (1, 100, 10):
            out = op.deformable_convolution(op.relu(op.multiply(x, np.float32(factor))), offset, op.constant(WEIGHT),
                                            [1, 1], [1, 1], [1, 1], [1, 1], bilinear_interpolation_pad=True)
            out.set_friendly_name(f"times {factor}")
            outs.append(out)
        return ov.Model(outs, [x, offset])

    copy = model_of_three()
    assert quantize_deformable(copy, model_of_three(), feeds_with(2.0, 4.0)) == {"times 1", "times 10", "times 100"}
    for node in copy.get_ordered_ops():
        if node.get_type_name() == "DeformableConvolution":
            limit = node.input_value(0).get_node().input_value(2).get_node().data
            assert float(limit) == pytest.approx(3 * int(node.get_friendly_name().removeprefix("times ")))
