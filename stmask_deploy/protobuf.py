"""Protobuf encoding, as far as ONNX files need it: the runtime does not depend on the `onnx` package.

A message is a sequence of numbered fields; dropping some still leaves a valid message.
"""
from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
_MAX_VARINT_BYTES = 10  # for a 64-bit number


class Field(NamedTuple):
    """One field of an encoded message."""

    number: int
    whole: memoryview  # key, length and value
    value: memoryview  # of a message, a string or bytes; empty for all others
    integer: int  # of a varint; 0 for all others


def read_fields(message: bytes | memoryview) -> Iterator[Field]:
    """Yield the fields of an encoded message, in order.

    Raises:
        ValueError: the bytes are not an encoded message.
    """
    message = memoryview(message)
    at = 0
    while at < len(message):
        start = at
        key, at = read_varint(message, at)
        kind, size, integer = key & 7, 0, 0
        if kind == _BYTES:
            size, at = read_varint(message, at)
        elif kind == _VARINT:
            integer, at = read_varint(message, at)
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"not a protobuf message: wire type {kind}")
        end = at + size
        if end > len(message):
            raise ValueError("not a protobuf message: it ends within a field")
        yield Field(key >> 3, message[start:end], message[at:end], integer)
        at = end


def read_varint(message: memoryview, at: int) -> tuple[int, int]:
    """The varint at `at` (7 bits per byte, lowest first), and the position after it.

    Raises:
        ValueError: the message ends within the number, or the number is too long.
    """
    value = 0
    for place, byte in enumerate(message[at:at + _MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, at + place + 1
    what = "it ends within a number" if len(message) - at < _MAX_VARINT_BYTES else "a number of more than 64 bits"
    raise ValueError(f"not a protobuf message: {what}")


def write_varint(value: int) -> bytes:
    """Encode a non-negative number."""
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def write_field(number: int, value: int | bytes | str) -> bytes:
    """Encode a field: integers as varints, everything else length-delimited."""
    if isinstance(value, int):
        return write_varint(number << 3 | _VARINT) + write_varint(value)
    content = value.encode() if isinstance(value, str) else value
    return bytes_key(number, len(content)) + content


def bytes_key(number: int, size: int) -> bytes:
    """The key and length that precede the value of a length-delimited field of `size` bytes."""
    return write_varint(number << 3 | _BYTES) + write_varint(size)
