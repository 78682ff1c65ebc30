"""Files that torch would load to its harm: with sizes that they choose, keys that take for ever, or missing values."""
from __future__ import annotations

import io
import pickle
import pickletools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from refusals import refuse
from tiny_models import CONFIG, state_of

from stmask_deploy.models.checkpoint import load_checkpoint
from stmask_deploy.models.pickle_scan import check_old_form, check_pickle

STATE = state_of(CONFIG)


class Calls:
    """Calls a function when it is unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def nested(depth: int) -> tuple[Any, ...]:
    """A tuple of two equal tuples of two equal ones and so on: its hash visits 2 ** depth of them."""
    key: tuple[Any, ...] = (1, 2)
    for _ in range(depth):
        key = (key, key)
    return key


@pytest.mark.parametrize("value", [
    pytest.param({"a": 1, 2: [3.5, None, True, (b"x", "y")], "c": {"d": {}}}, id="plain"),
    pytest.param([1 << 200, -1, "x" * 300, ()], id="numbers and text"),
    pytest.param({"a": Calls(print, "not called")}, id="objects"),
])
@pytest.mark.parametrize("protocol", range(5))
def test_what_passes_is_read_to_its_end(value: Any, protocol: int, capsys: pytest.CaptureFixture[str]) -> None:
    data = pickle.dumps(value, protocol)
    file = io.BytesIO(data + b"rest")
    check_pickle(file)
    assert capsys.readouterr().out == ""
    if protocol < 4:  # later ones are read in frames
        assert file.read() == b"rest"


@pytest.mark.parametrize("make, told", [
    pytest.param(lambda protocol: pickle.dumps(Calls(bytearray, 1 << 40), protocol), "bytearray", id="array"),
    pytest.param(lambda protocol: key_of(nested(60), protocol), "neither text nor a number", id="tuples"),
    pytest.param(lambda protocol: pickle.dumps({"a": {None: 1, "b": 2}}, protocol), "neither text nor", id="None"),
    pytest.param(lambda protocol: pickle.dumps({"a": {None: 1}}, protocol), "neither text nor", id="None alone"),
    pytest.param(lambda _: pickle.MARK + pickle.dumps(nested(60), 2)[2:-1] + pickle.NONE + pickle.DICT + pickle.STOP,
                 "neither text nor", id="tuples at once"),
    pytest.param(lambda _: pickle.dumps({1.5, 2.5}, 4), "a set", id="set"),
    pytest.param(lambda _: pickle.dumps(frozenset({1.5}), 4), "a set", id="frozenset"),
    pytest.param(lambda _: pickle.dumps(bytearray(10), 5), "a set or an array of bytes", id="array of protocol 5"),
])
@pytest.mark.parametrize("protocol", [2, 4])
def test_what_torch_would_wait_for(make: Callable[[int], bytes], told: str, protocol: int) -> None:
    with pytest.raises(pickle.UnpicklingError, match=told):
        check_pickle(io.BytesIO(make(protocol)))


def test_names_of_values_that_are_no_texts() -> None:
    class Naming(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            return ("storage", None, nested(60)) if isinstance(value, Calls) else None

    file = io.BytesIO()
    Naming(file, 2).dump([Calls(print)])
    check_pickle(io.BytesIO(file.getvalue()))


def key_of(key: Any, protocol: int) -> bytes:
    """The pickle of {key: 1}, without ever hashing the key."""
    data = pickle.dumps([key, 1], protocol)
    assert [code.name for code, _, _ in pickletools.genops(data)][-2:] == ["APPENDS", "STOP"]
    return data.replace(pickle.EMPTY_LIST, pickle.EMPTY_DICT, 1)[:-2] + pickle.SETITEMS + pickle.STOP


@pytest.mark.parametrize("extra", [Calls(bytearray, 1 << 40), [Calls(bytearray, b"x" * 9)]])
@pytest.mark.parametrize("is_zip", [True, False])
def test_arrays_of_bytes_in_checkpoints(save: Callable[..., Path], extra: Any, is_zip: bool) -> None:
    path = save({"state_dict": STATE, "extra": extra}, _use_new_zipfile_serialization=is_zip)
    assert "never run (builtins.bytearray)" in refuse(path) or "never run (__builtin__.bytearray)" in refuse(path)


def old_form(save: Callable[..., Path], drop: str | None = None, add: Any = None) -> Path:
    """STATE in the form before torch 1.6, perhaps without the values of the storage that comes last, or with more."""
    path = save(STATE, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    file = io.BytesIO(data)
    for _ in range(4):
        check_pickle(file)
    start = file.tell()
    keys = pickle.load(file)  # noqa: S301 (made above)
    if drop or add:
        changed = [*keys[:-1]] if drop else [*keys, add]
        path.write_bytes(data[:start] + pickle.dumps(changed, 2) + data[file.tell():])
    return path


def test_the_old_form_is_read(save: Callable[..., Path]) -> None:
    loaded = load_checkpoint(old_form(save))
    assert all(torch.equal(loaded.state[name], value) for name, value in STATE.items())


def test_values_that_are_missing(save: Callable[..., Path]) -> None:
    """torch would take what is in memory for them."""
    assert "is damaged or holds" in refuse(old_form(save, drop="last"))
    assert "is damaged or holds" in refuse(old_form(save, add="12345"))
    assert "is damaged or holds" in refuse(old_form(save, add=nested(60)))  # whose hash would take for ever


def test_objects_where_torch_writes_none() -> None:
    for position in range(5):
        parts: list[Any] = [1, 2, {"little_endian": sys.byteorder == "little"}, {}, []]
        parts[position] = Calls(print, "not called")
        data = b"".join(pickle.dumps(part, 2) for part in parts)
        if position == 3:  # the content
            check_old_form(io.BytesIO(data))
            continue
        with pytest.raises(pickle.UnpicklingError, match="GLOBAL"):
            check_old_form(io.BytesIO(data))
