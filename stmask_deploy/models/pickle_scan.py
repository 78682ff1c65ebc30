"""Reads the pickles of a file written by torch without making any of their objects, before torch does.

torch makes only tensors and plain values, but takes every size that a file names, waits for the hash of any key, and
makes tensors whose values are whatever is in memory.
"""
from __future__ import annotations

import pickle
from typing import IO, Any

_HEADER_PICKLES = 3  # of a file of the form before torch 1.6: how to recognise it, its version, and the machine
_PLAIN = (str, int, float, type(None))


class RefusedPickle(pickle.UnpicklingError):
    """What a pickle holds that no checkpoint needs, and torch would take."""


def check_pickle(file: IO[bytes]) -> None:
    """Read the next pickle of `file`.

    Raises:
        RefusedPickle: it makes an array of bytes, which may have any size, or a tensor without values; or it holds a
            set or a key whose hash may take for ever.
        Exception: whatever Python's parser raises for damaged ones.
    """
    _Scan(file).load()


def check_old_form(file: IO[bytes]) -> None:
    """Read the pickles of a file of the form before torch 1.6.

    Raises:
        RefusedPickle: see `check_pickle`; or the values of a tensor are missing.
        UnpicklingError: there are objects where torch writes none.
        Exception: whatever Python's parser raises for damaged ones.
    """
    for _ in range(_HEADER_PICKLES):
        _Scan(file, with_objects=False).load()
    content = _Scan(file)
    content.load()
    stored = _Scan(file, with_objects=False).load()
    are_keys = isinstance(stored, list) and all(isinstance(key, str) for key in stored)  # others may hash for ever
    if not are_keys or content.storages != set(stored):
        raise RefusedPickle("tensors without values")


def _check_keys(keys: Any) -> None:
    """Raise RefusedPickle unless the keys are plain values, or tuples of these: what is nested may hash for ever."""
    for key in keys:
        if not all(isinstance(part, _PLAIN) for part in (key if isinstance(key, tuple) else [key])):
            raise RefusedPickle("keys that are neither text nor numbers")


class _Nothing:
    """Stands for an object of any class; takes all arguments, state, items and elements."""

    def __init__(self, *_: object) -> None: ...

    def __call__(self, *_: object) -> _Nothing:
        return self

    def __setitem__(self, key: object, value: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...

    def append(self, value: object) -> None: ...

    def extend(self, values: object) -> None: ...


class _Set(_Nothing):
    """Stands for a set, and for a count of what is in one."""

    def __init__(self, items: object = None) -> None:
        if items and not isinstance(items, dict):  # whose keys have been checked
            raise RefusedPickle("a set")


class _Dictionary(_Nothing):
    def __init__(self, items: Any = ()) -> None:
        if not isinstance(items, dict):  # Python 2 wrote lists of pairs
            _check_keys(key for key, _ in items)


class _Tensor(_Nothing):
    """Stands for a class of tensors or storages, which may be named but not called."""

    def __new__(cls, *_: object) -> _Tensor:
        raise RefusedPickle("tensors without values")


_CLASSES = {"set": _Set, "frozenset": _Set, "Counter": _Set, "OrderedDict": _Dictionary}
_InPython: Any = pickle._Unpickler  # whose instructions can be replaced


def _keyed(load: Any, first: int) -> Any:
    """The instruction `load`, after a check of the keys: every other item of the stack from `first` on."""
    def checked(scan: Any) -> None:
        _check_keys(scan.stack[first::2])
        load(scan)
    return checked


def _refused(_: Any) -> None:
    raise RefusedPickle("a set or an array of bytes")


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
        if name.endswith(("Tensor", "Storage", "Parameter", "Buffer")):
            return _Tensor
        return _CLASSES.get(name, _Nothing)

    def persistent_load(self, pid: Any) -> Any:
        kind, _, key, _, _, view = (*pid, None) if len(pid) == 5 else pid
        is_view = view is None or isinstance(view, tuple) and isinstance(view[0], str)
        if not (kind == "storage" and isinstance(key, str) and is_view):
            raise RefusedPickle("values that torch does not write")
        self.storages.add(key)
        return _Nothing()
