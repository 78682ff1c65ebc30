"""Weights in files: their values, and where they are."""
from __future__ import annotations

import gc
import mmap
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from mapped_files import mapped
from numpy.typing import NDArray

ov = pytest.importorskip("openvino")

from stmask_deploy.runtime import weight_files  # noqa: E402
from stmask_deploy.runtime.openvino_backend import shared_core  # noqa: E402
from stmask_deploy.runtime.openvino_constants import floats  # noqa: E402
from stmask_deploy.runtime.weight_files import WeightFiles  # noqa: E402

if sys.platform != "linux":
    pytest.skip("constants stay in memory", allow_module_level=True)

import resource  # noqa: E402

VALUES = np.random.default_rng(0).standard_normal((36, 64, 48)).astype(np.float32)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(weight_files, "ROOM", 0)
    return tmp_path


def bits(node: Any) -> NDArray[np.uint8]:
    return np.array(node.data).view(np.uint8)


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_values_are_those_of_a_constant_in_memory(folder: Path, precision: str) -> None:
    weights = WeightFiles()
    expected = [floats(values, precision) for values in (VALUES, -VALUES, VALUES[:, :2, :2])]  # some of a few bytes
    nodes = [weights.constant(values, precision) for values in (VALUES, -VALUES, VALUES[:, :2, :2])]
    for _ in range(2):
        for node, other in zip(nodes, expected, strict=True):
            assert node.get_element_type() == other.get_element_type()
            assert list(node.get_output_shape(0)) == list(other.get_output_shape(0))
            np.testing.assert_array_equal(bits(node), bits(other))
        weights.release()
    assert not list(folder.iterdir())  # nothing to clean up, even after a crash


def test_they_are_in_memory_only_while_they_are_read(folder: Path) -> None:
    weights = WeightFiles()
    node = weights.constant(VALUES, "f32")
    size = -(-VALUES.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE // 1024
    for _ in range(2):
        bits(node)
        assert mapped(folder) == (size, size)
        weights.release()
        assert mapped(folder) == (size, 0)
    del node, weights
    gc.collect()
    assert mapped(folder) == (0, 0)


def test_a_model_computes_the_same_after_they_left_memory(folder: Path) -> None:
    from openvino import opset13 as op

    def compiled(weight: Any) -> Any:
        x = op.parameter([36, -1, 64], np.float32)
        return shared_core().compile_model(ov.Model([op.matmul(x, weight, False, False)], [x]), "CPU",
                                           {"INFERENCE_PRECISION_HINT": "f32"})

    weights = WeightFiles()
    product, expected = compiled(weights.constant(VALUES, "f32")), compiled(floats(VALUES, "f32"))
    for count in (5, 5, 1, 70, 300):
        weights.release()
        x = np.random.default_rng(count).standard_normal((36, count, 64)).astype(np.float32)
        np.testing.assert_array_equal(product([x])[0], expected([x])[0])


def saved(folder: Path) -> Path:
    """A graph that adds `VALUES`."""
    from openvino import opset13 as op

    x = op.parameter([-1, 64, 48], np.float32)
    ov.save_model(ov.Model([op.add(x, op.constant(VALUES))], [x]), folder / "add ü.xml", compress_to_fp16=False)
    return folder / "add ü.xml"


def test_a_models_own_weights_are_in_memory_only_while_they_are_read(folder: Path) -> None:
    weights = WeightFiles()
    model = weights.model(shared_core(), saved(folder))
    added = shared_core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    size = -(-VALUES.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE // 1024
    [constant] = [node for node in model.get_ordered_ops() if node.get_type_name() == "Constant"]
    for scale in (1, 3):
        np.testing.assert_array_equal(constant.data, VALUES)
        assert mapped(folder) == (size, size)
        weights.release()
        assert mapped(folder) == (size, 0)
        x = np.full(VALUES.shape, scale, np.float32)
        np.testing.assert_array_equal(added([x])[0], x + VALUES)
    del constant, model, added, weights
    gc.collect()
    assert mapped(folder) == (0, 0)


def test_a_description_is_never_newer_than_the_weights(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If an export replaces both meanwhile, the check of the weights' mark must be able to see it."""
    graph, read = saved(folder), Path.read_text

    def replaced(path: Path, *args: Any, **options: Any) -> str:
        text = read(path, *args, **options)
        np.full(VALUES.shape, 7, np.float32).tofile(folder / "other.bin")
        (folder / "other.bin").replace(graph.with_suffix(".bin"))
        return text

    monkeypatch.setattr(Path, "read_text", replaced)
    weights = WeightFiles()
    model = weights.model(shared_core(), graph)
    [constant] = [node for node in model.get_ordered_ops() if node.get_type_name() == "Constant"]
    assert (constant.data == 7).all()  # the text of the old one, the weights of the new one


@pytest.mark.parametrize("content", [None, b""])
def test_a_model_without_weights(folder: Path, content: bytes | None) -> None:
    graph = saved(folder)
    graph.with_suffix(".bin").unlink()
    if content is not None:
        graph.with_suffix(".bin").write_bytes(content)
    with pytest.raises((OSError, ValueError), match=r"add ü\.bin|empty"):
        WeightFiles().model(shared_core(), graph)


@pytest.mark.parametrize("content", [b"", b"<net", b"<net/>", b"\xff"])
def test_a_damaged_model(folder: Path, content: bytes) -> None:
    graph = saved(folder)
    graph.write_bytes(content)
    with pytest.raises((RuntimeError, ValueError)):
        WeightFiles().model(shared_core(), graph)


def test_weights_cut_short(folder: Path) -> None:
    graph = saved(folder)
    os.truncate(graph.with_suffix(".bin"), VALUES.nbytes - 4)
    with pytest.raises(RuntimeError):
        WeightFiles().model(shared_core(), graph)


@pytest.mark.parametrize("place", ["missing", "file"])
def test_without_a_folder_they_stay_in_memory(folder: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    (folder / "file").write_bytes(b"")
    monkeypatch.setenv("TMPDIR", str(folder / place))
    weights = WeightFiles()
    node = weights.constant(VALUES, "bf16")
    weights.release()
    np.testing.assert_array_equal(bits(node), bits(floats(VALUES, "bf16")))
    assert mapped(folder) == (0, 0)


def test_without_room_they_stay_in_memory(folder: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    weights = WeightFiles()
    resource.setrlimit(resource.RLIMIT_FSIZE, (VALUES.nbytes // 2, limits[1]))  # as if the disk were full
    try:
        node = weights.constant(VALUES, "f32")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    weights.release()
    np.testing.assert_array_equal(bits(node), bits(floats(VALUES, "f32")))
    assert mapped(folder) == (0, 0) and not list(folder.iterdir())


def test_they_leave_room_for_others(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = WeightFiles()
    free = shutil.disk_usage(folder).free
    for room, has_file in ((2 * free, False), (free // 2, True)):
        monkeypatch.setattr(weight_files, "ROOM", room)
        node = weights.constant(VALUES, "f32")
        np.testing.assert_array_equal(bits(node), bits(floats(VALUES, "f32")))
        assert (mapped(folder)[0] > 0) is has_file


LOCKED = """
import ctypes, numpy as np
from stmask_deploy.runtime.weight_files import WeightFiles
weights = WeightFiles()
node = weights.constant(np.arange(100_000, dtype=np.float32), "f32")
if ctypes.CDLL(None).mlockall(1):
    print("not allowed", end="")
else:
    weights.release()
    print(node.data.sum(dtype=np.float64), end="")
"""


def test_a_process_that_locks_its_memory_keeps_them(tmp_path: Path) -> None:
    """As robots do, to be on time."""
    done = subprocess.run([sys.executable, "-c", LOCKED], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    if done.stdout == "not allowed":
        pytest.skip("memory cannot be locked here")
    assert done.stdout == str(sum(map(float, range(100_000)))), done.stderr


@pytest.mark.parametrize("value", [None, ""])
def test_without_tmpdir_they_are_in_var_tmp(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    if not os.access("/var/tmp", os.W_OK):
        pytest.skip("/var/tmp cannot be written")
    if value is None:
        monkeypatch.delenv("TMPDIR")
    else:
        monkeypatch.setenv("TMPDIR", value)
    gc.collect()
    before = mapped(Path("/var/tmp"))[0]
    weights = WeightFiles()
    weights.constant(VALUES, "f32")
    assert mapped(Path("/var/tmp"))[0] > before


def test_elsewhere_than_on_linux_they_stay_in_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_files, "sys", SimpleNamespace(platform="win32"))
    weights = WeightFiles()
    node = weights.constant(VALUES, "f32")
    model = weights.model(shared_core(), saved(folder))
    weights.release()
    np.testing.assert_array_equal(bits(node), bits(floats(VALUES, "f32")))
    [constant] = [node for node in model.get_ordered_ops() if node.get_type_name() == "Constant"]
    np.testing.assert_array_equal(constant.data, VALUES)
    assert not weights._maps  # some systems could not release them
