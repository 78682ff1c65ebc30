"""Copies of values of every kind, from and to both kinds of places."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from stmask_deploy.runtime.backends import TensorSpec
from stmask_deploy.runtime.onnxruntime_copies import Copies, identities
from stmask_deploy.runtime.onnxruntime_providers import CPU
from stmask_deploy.runtime.onnxruntime_session import SessionMaker

SPECS = {"frame": TensorSpec("uint8", (1, 4, 5, 3)), "boxes": TensorSpec("float32", (7, 4)),
         "half": TensorSpec("float16", (2,)), "anchor_index": TensorSpec("int64", (7,)),
         "num_candidates": TensorSpec("int64", ()), "none": TensorSpec("float32", (0, 4))}


@pytest.fixture(scope="module")
def copies() -> Copies:
    return Copies(SessionMaker(onnxruntime, Path("unread"), CPU, "f32", 1, None), SPECS)


def values(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: np.asarray(rng.integers(0, 200, spec.shape)).astype(spec.dtype) for name, spec in SPECS.items()}


def value_of(array: np.ndarray) -> onnxruntime.OrtValue:
    return onnxruntime.OrtValue.ortvalue_from_numpy(array)


def test_the_model_is_one() -> None:
    model = onnx.load_from_string(identities(SPECS))
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["Identity"] * len(SPECS)


def test_new_values_in_a_memory(copies: Copies) -> None:
    given = values(0)
    found = copies.run(given, dict.fromkeys(SPECS, "cpu"))
    again = copies.run(values(1), dict.fromkeys(SPECS, "cpu"))  # leaves the first copies alone
    assert list(found) == list(SPECS)
    for name, array in given.items():
        assert found[name].numpy().dtype == array.dtype and np.array_equal(found[name].numpy(), array)
        assert np.array_equal(again[name].numpy(), values(1)[name])


def test_arrays_of_their_own_and_arrays_that_are_there(copies: Copies) -> None:
    given, held = values(0), values(1)
    places = {name: held[name] if name in ("boxes", "half", "num_candidates") else None for name in SPECS}
    found = copies.run(given, places)
    again = copies.run(values(2), dict.fromkeys(SPECS))
    assert list(found) == list(SPECS)
    for name, array in given.items():
        assert isinstance(found[name], np.ndarray) and (found[name] is held[name]) == (places[name] is not None)
        assert found[name].dtype == array.dtype and np.array_equal(found[name], array)
        assert np.array_equal(again[name], values(2)[name])


def test_into_values_that_are_there(copies: Copies) -> None:
    held = values(0)
    places = {name: value_of(array) for name, array in held.items()}
    addresses = {name: place.data_ptr() for name, place in places.items()}
    given = values(1)
    found = copies.run({name: value_of(array) if name == "boxes" else array for name, array in given.items()}, places)
    for name, array in given.items():
        assert np.array_equal(held[name], array)  # the memory that the place stands for
        assert found[name].data_ptr() == places[name].data_ptr() == addresses[name]
