"""Files that torch would load to its harm: with sizes that they choose, keys that take for ever, or missing values."""
from __future__ import annotations

import io
import pickle
import pickletools
import sys
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from refusals import refuse
from tiny_models import CONFIG, state_of

from stmask_deploy.models import torch_file
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
    pytest.param({"ap": {0.5: 1, None: 2, ("a", 1): 3}}, id="keys"),
    pytest.param([Counter("abca"), OrderedDict(a=1), OrderedDict(), set, Calls(set), Calls(OrderedDict, {"abc": 1})],
                 id="dictionaries"),
    pytest.param([Calls(OrderedDict, [["a", 1], ("b", 2)]), torch.Tensor, torch.FloatStorage], id="as Python 2 writes"),
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
    pytest.param(lambda protocol: key_of(nested(60), protocol), "neither text nor numbers", id="tuples"),
    pytest.param(lambda protocol: pickle.dumps({"a": {((),): 1, "b": 2}}, protocol), "neither text nor", id="several"),
    pytest.param(lambda protocol: pickle.dumps({"a": {((),): 1}}, protocol), "neither text nor", id="alone"),
    pytest.param(lambda _: pickle.MARK + pickle.dumps(nested(60), 2)[2:-1] + pickle.NONE + pickle.DICT + pickle.STOP,
                 "neither text nor", id="tuples at once"),
    pytest.param(lambda protocol: pickle.dumps(Calls(set, [nested(60)]), protocol), "a set", id="set by a call"),
    pytest.param(lambda protocol: pickle.dumps(Calls(Counter, [("a", nested(60))]), protocol), "a set", id="counter"),
    pytest.param(lambda protocol: pickle.dumps(Calls(OrderedDict, [(nested(60), 1)]), protocol), "neither text",
                 id="ordered"),
    pytest.param(lambda protocol: pickle.dumps(Calls(torch.Tensor, 9), protocol), "without values", id="tensor"),
    pytest.param(lambda protocol: pickle.dumps(Calls(torch.FloatTensor, 9), protocol), "without values", id="floats"),
    pytest.param(lambda protocol: pickle.dumps(Calls(torch.UntypedStorage, 9), protocol), "without", id="storage"),
    pytest.param(lambda _: b"\x80\x02ctorch.nn.parameter\nParameter\n)\x81.", "without values", id="parameter"),
    pytest.param(lambda _: pickle.dumps({1.5, 2.5}, 4), "a set", id="set"),
    pytest.param(lambda _: pickle.dumps(frozenset({1.5}), 4), "a set", id="frozenset"),
    pytest.param(lambda _: pickle.dumps(bytearray(10), 5), "a set or an array of bytes", id="array of protocol 5"),
])
@pytest.mark.parametrize("protocol", [2, 4])
def test_what_torch_would_wait_for(make: Callable[[int], bytes], told: str, protocol: int) -> None:
    with pytest.raises(pickle.UnpicklingError, match=told):
        check_pickle(io.BytesIO(make(protocol)))


@pytest.mark.parametrize("pid", [
    ("storage", None, nested(60), "cpu", 3), ("storage", None, 7, "cpu", 3, None), ("module", None, "7", "cpu", 3),
    (b"storage", None, "7", "cpu", 3), ("storage", None, "7", "cpu", 3, (nested(60), 0, 3)), ("storage", None, "7"),
    "storage",
], ids=range(7))
def test_values_that_torch_does_not_write(pid: Any) -> None:
    class Naming(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            return pid if isinstance(value, Calls) else None

    file = io.BytesIO()
    Naming(file, 2).dump([Calls(print)])
    with pytest.raises((pickle.UnpicklingError, ValueError)):
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
    assert "holds tensors without values, which could do harm; save the" in refuse(old_form(save, drop="last"))
    assert "holds tensors without values" in refuse(old_form(save, add="12345"))
    assert "holds tensors without values" in refuse(old_form(save, add=nested(60)))  # whose hash would take for ever


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


def test_what_torch_finds_in_a_zip_is_read(save: Callable[..., Path]) -> None:
    """torch takes an entry whose name differs in case, and a directory that Python does not take for one."""
    path = save({**STATE, "extra": Calls(bytearray, 1 << 40)})
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name.replace("data.pkl", "DATA.PKL"), content)
    assert "never run (builtins.bytearray)" in refuse(path) or "never run (__builtin__.bytearray)" in refuse(path)


def test_training_states_are_read(save: Callable[..., Path]) -> None:
    module = torch.nn.Linear(3, 3)
    optimizer = torch.optim.Adam(module.parameters())
    module(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    content = {"state_dict": STATE, "optimizer": optimizer.state_dict(), "ap": {0.5: 0.3, 0.75: 0.1, ("a", 1): None},
               "losses": Counter(mask=3), "rng": torch.get_rng_state(), "parameter": torch.nn.Parameter(torch.ones(2))}
    for is_zip in (True, False):
        assert load_checkpoint(save(content, _use_new_zipfile_serialization=is_zip)).state.keys() == STATE.keys()


def test_sizes_are_those_of_the_entries_that_torch_finds(save: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
                                                         ) -> None:
    """Of two directories in one file, Python takes the one before the end, and torch the one that the end names."""
    path = save(STATE)
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    parts = []
    for size in (10 ** 6, 1):
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in entries.items():
                archive.writestr(name, content * (size if name.endswith("byteorder") else 1))
        data = path.read_bytes()
        start = int.from_bytes(data[-6:-2], "little")  # of the directory
        parts.append((data[:start], data[start:-22], data[-22:]))
    (large, large_folder, end), (small, small_folder, _) = parts
    moved = b""
    with zipfile.ZipFile(path) as archive:  # entries are found relative to where the directory was to be
        for entry in archive.infolist():
            record = small_folder[len(moved):]
            length = 46 + sum(int.from_bytes(record[at:at + 2], "little") for at in (28, 30, 32))
            offset = len(large) - len(small) + entry.header_offset
            moved += record[:42] + offset.to_bytes(4, "little") + record[46:length]
    path.write_bytes(large + large_folder + small + moved + end)
    assert len(moved) == len(large_folder)
    with zipfile.ZipFile(path) as archive:
        assert {entry.filename: archive.read(entry) for entry in archive.infolist()} == entries
    monkeypatch.setattr(torch_file, "MAX_BYTES", 10 ** 6)
    assert "unpacks to more than" in refuse(path)
