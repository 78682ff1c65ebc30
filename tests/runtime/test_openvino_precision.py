"""What stays in f32 where OpenVINO computes in bf16."""
from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

ov = pytest.importorskip("openvino")

from stmask_deploy.runtime.openvino_backend import shared_core  # noqa: E402
from stmask_deploy.runtime.openvino_precision import is_kept, keep_in_f32, kept_for  # noqa: E402

Array = NDArray[np.float32]


def difference_model(is_kept_in_f32: bool) -> Any:
    """x (N, 4) -> (x + 300)[:, :2] - (x + 300)[:, 2:], through a matrix product that changes nothing."""
    from openvino import opset13 as op

    x = op.parameter([-1, 4], np.float32, name="x")
    large = op.add(x, op.constant(np.float32(300)))
    first, second = (op.gather(large, op.constant(np.array(columns)), op.constant(np.int64(1)))
                     for columns in ([0, 1], [2, 3]))
    small = op.subtract(first, second)
    out = op.matmul(small, op.constant(np.eye(2, dtype=np.float32)), False, False)
    out.output(0).get_tensor().set_names({"out"})
    model = ov.Model([out], [x])
    if is_kept_in_f32:
        keep_in_f32(model, small.output(0))
    return model


def run(model: Any, x: Array, precision: str) -> dict[str, Array]:
    compiled = shared_core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": precision})
    if compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name() != precision:
        pytest.skip(f"this CPU does not compute in {precision}")
    return {port.any_name: np.array(value) for port, value in compiled({"x": x}).items()}


def test_what_is_kept_is_not_rounded() -> None:
    x = np.array([[0.25, 0.5, 0.0, 1.0]], np.float32)  # 300.25 has more than 8 bits, the results have one
    assert not np.array_equal(run(difference_model(False), x, "bf16")["out"], [[0.25, -0.5]])
    np.testing.assert_array_equal(run(difference_model(True), x, "bf16")["out"], [[0.25, -0.5]])


@pytest.mark.parametrize("count", [0, 1, 5])
def test_it_costs_an_output_of_one_number_at_most(count: int) -> None:
    x = np.random.default_rng(0).random((count, 4), np.float32)
    found = run(difference_model(True), x, "f32")
    np.testing.assert_allclose(found.pop("out"), x[:, :2] - x[:, 2:], atol=1e-4)
    (name, value), = found.items()
    assert is_kept(name) and value.shape == (min(count, 1),)


def test_outputs_of_several_have_names_of_their_own() -> None:
    model = difference_model(True)
    keep_in_f32(model, model.get_parameters()[0].output(0))
    names = [port.any_name for port in model.outputs]
    assert len(set(names)) == 3 and [is_kept(name) for name in names] == [False, True, True]


def test_a_part_takes_along_what_is_kept_of_its_own_values() -> None:
    from openvino import opset13 as op

    x = op.parameter([-1, 4], np.float32, name="x")
    halves = [op.result(op.multiply(op.add(x, np.float32(number)), np.float32(2))) for number in (1, 2)]
    model = ov.Model(halves, [x])
    for half in halves:
        keep_in_f32(model, half.input_value(0).get_node().input_value(0))
    for number, half in enumerate(halves):
        part = ov.Model([half], [x])
        kept = kept_for(model, part)
        part.add_results(kept)
        assert len(kept) == 1
        np.testing.assert_array_equal(shared_core().compile_model(part, "CPU")({"x": np.zeros((1, 4), np.float32)})[1],
                                      [number + 1])
    assert len(kept_for(model, ov.Model(halves, [x]))) == 2
