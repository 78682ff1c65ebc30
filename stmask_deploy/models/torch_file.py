"""Loads files written by torch without ever executing code from them (docs/decisions/0006)."""
from __future__ import annotations

import io
import sys
import warnings
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import torch

from ..errors import InputError
from .pickle_scan import check_old_form, check_pickle

ZIP_START, PICKLE_START = b"PK\x03\x04", b"\x80"  # of files written by torch: since 1.6, and before
# On crafted files, torch < 2.10 executes code or corrupts memory even with weights_only (CVE-2025-32434,
# CVE-2026-24747).
TORCH_FLOOR = (2, 10)
MAX_BYTES = 4 << 30  # of tensors; the largest released variant has 0.3 GB, and a training state five times its network


def load_tensors(path: Path) -> Any:
    """The content of a file written by `torch.save`: tensors on the CPU, plain values, and containers of these.

    Raises:
        InputError: this torch cannot load files safely, or the file unpacks to more than `MAX_BYTES`.
        Exception: whatever torch's parsers raise for damaged files or files with other objects.
    """
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if version < TORCH_FLOOR:
        raise InputError(f"torch {torch.__version__} cannot load checkpoints safely; install torch >= 2.10")
    with open(path, "rb") as file:
        is_zip = file.read(4) == ZIP_START  # torch uses the same criterion
    if is_zip:
        with zipfile.ZipFile(path) as archive:
            _check_size(path, (entry.file_size for entry in archive.infolist()))
            _check_sums(archive)
    with open(path, "rb") as file:
        if is_zip:
            reader = torch._C.PyTorchFileReader(file)  # which may find other entries than Python does
            _check_size(path, map(reader.get_record_size, reader.get_all_records()))
            check_pickle(io.BytesIO(reader.get_record("data.pkl")))
        else:
            check_old_form(file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # for torch's own internals and old pickle protocols
        return torch.load(path, map_location="cpu", weights_only=True)


def _check_size(path: Path, sizes: Iterable[int]) -> None:
    if sum(sizes) > MAX_BYTES:
        raise InputError(f"{path} unpacks to more than {MAX_BYTES >> 30} GiB, which no STMask checkpoint does")


def _check_sums(archive: zipfile.ZipFile) -> None:
    """Raise BadZipFile if an entry does not have its checksum: torch does not look, and would load other weights."""
    for entry in archive.infolist():
        if entry.CRC:  # torch writes 0 where it is told to compute none
            with archive.open(entry) as file:
                while file.read(1 << 20):
                    pass


def save_tensors(values: Any, file: BinaryIO) -> None:
    """`torch.save`, whose own error hides what ended a write: a full disk, or Ctrl-C.

    Raises:
        OSError: the file cannot be written.
    """
    handled = sys.exc_info()[1]  # the context of every error raised from here on
    try:
        torch.save(values, file)
    except RuntimeError as error:
        cause = error.__context__
        if isinstance(cause, (OSError, KeyboardInterrupt)) and cause is not handled:
            raise cause from None
        raise
