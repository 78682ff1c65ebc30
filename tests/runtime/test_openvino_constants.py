"""Constants in a type that NumPy lacks."""
from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("openvino")
torch = pytest.importorskip("torch")

from stmask_deploy.runtime.openvino_constants import floats, int64, reshaped  # noqa: E402


def test_bf16_is_rounded_as_by_torch() -> None:
    bits = np.random.default_rng(0).integers(0, 1 << 32, (4, 50, 20), np.uint32)
    values = bits.view(np.float32)
    values[0, :, 0] = 1 + (2 * np.arange(50) + 1) / 256  # halfway between two neighbours, the even one is taken
    values[1, :2] = [[0.0] * 20, [-0.0] * 20]
    values = np.where(np.isfinite(values), values, 1e-40).astype(np.float32)
    node = floats(values, "bf16")
    assert node.get_element_type().get_type_name() == "bf16" and list(node.get_output_shape(0)) == [4, 50, 20]
    expected = torch.from_numpy(values).bfloat16().view(torch.int16).numpy()
    np.testing.assert_array_equal(np.asarray(node.data).view(np.int16), expected)


def test_f32_stays_as_it_is() -> None:
    values = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)
    node = floats(values, "f32")
    assert node.get_element_type().get_type_name() == "f32"
    np.testing.assert_array_equal(node.data, values)
    np.testing.assert_array_equal(floats([1, 2], "f32").data, np.float32([1, 2]))
    np.testing.assert_array_equal(floats(values.T, "f32").data, values.T)  # not in the order of memory


def test_a_shape_is_numbers_or_a_node_of_them() -> None:
    value = floats(np.zeros((0, 2, 6)), "f32")
    assert list(reshaped(value, [3, 0]).get_output_shape(0)) == [3, 0]  # a zero is no "as before"
    full = floats(np.zeros((4, 6)), "f32")
    for shape in ([3, -1], int64([3, -1])):
        assert list(reshaped(full, shape).get_output_shape(0)) == [3, 8]


def test_bf16_outlives_what_it_was_made_from() -> None:
    nodes = [floats(np.full((36, 100, 100), value), "bf16") for value in range(8)]
    assert [np.unique(np.asarray(node.data).view(np.uint16)).tolist() for node in nodes] == [
        [int(np.float32(value).view(np.uint32)) >> 16] for value in range(8)]
