"""Reads the pickles of a file written by torch without making any of their objects, before torch does.

torch makes only tensors and plain values, but takes every size that a file names, waits for the hash of any key, and
leaves the values of tensors that a file of the form before torch 1.6 lacks at whatever is in memory.
"""
from __future__ import annotations

import pickle
from typing import IO, Any

_HEADER_PICKLES = 3  # of a file of the old form: a number to recognise it, its version, and properties of the machine


def check_pickle(file: IO[bytes]) -> None:
    """Read the next pickle of `file`.

    Raises:
        UnpicklingError: it makes an array of bytes, which may have any size; or it holds a set, or keys that are
            neither text nor numbers.
        Exception: whatever Python's parser raises for damaged ones.
    """
    _Scan(file).load()


def check_old_form(file: IO[bytes]) -> None:
    """Read the pickles of a file of the form before torch 1.6.

    Raises:
        UnpicklingError: see `check_pickle`; or the values of a tensor are missing, or there are objects where torch
            writes none.
        Exception: whatever Python's parser raises for damaged ones.
    """
    for _ in range(_HEADER_PICKLES):
        _Scan(file, with_objects=False).load()
    content = _Scan(file)
    content.load()
    stored = _Scan(file, with_objects=False).load()
    are_keys = isinstance(stored, list) and all(isinstance(key, str) for key in stored)  # others may hash for ever
    if not are_keys or content.storages != set(stored):
        raise pickle.UnpicklingError("values are missing")


class _Nothing:
    """Stands for an object of any class; takes all arguments, state, items and elements."""

    def __init__(self, *_: object) -> None: ...

    def __call__(self, *_: object) -> _Nothing:
        return self

    def __setitem__(self, key: object, value: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...

    def append(self, value: object) -> None: ...

    def extend(self, values: object) -> None: ...


_InPython: Any = pickle._Unpickler  # whose instructions can be replaced


def _keyed(load: Any, first: int) -> Any:
    """The instruction `load`, refused unless every other item of the stack from `first` on is text or a number."""
    def checked(scan: Any) -> None:
        if not all(isinstance(key, str | int) for key in scan.stack[first::2]):
            raise pickle.UnpicklingError("a key that is neither text nor a number")
        load(scan)
    return checked


def _refused(_: Any) -> None:
    raise pickle.UnpicklingError("a set or an array of bytes")


class _Scan(_InPython):  # type: ignore[misc]
    dispatch = {**_InPython.dispatch,
                pickle.SETITEM[0]: _keyed(_InPython.load_setitem, -2),
                pickle.SETITEMS[0]: _keyed(_InPython.load_setitems, 0),
                pickle.DICT[0]: _keyed(_InPython.load_dict, 0),
                **{code[0]: _refused for code in (pickle.BYTEARRAY8, pickle.EMPTY_SET, pickle.FROZENSET)}}

    def __init__(self, file: IO[bytes], *, with_objects: bool = True) -> None:
        super().__init__(file)
        self._with_objects = with_objects
        self.storages: set[str] = set()  # keys of the values of tensors

    def find_class(self, module: str, name: str) -> Any:
        if name == "bytearray" or not self._with_objects:
            raise pickle.UnpicklingError(f"GLOBAL {module}.{name}")
        return _Nothing

    def persistent_load(self, pid: Any) -> Any:
        if isinstance(pid, tuple) and pid[:1] == ("storage",) and isinstance(pid[2], str):
            self.storages.add(pid[2])
        return _Nothing()
