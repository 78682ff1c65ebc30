"""Against the encoding that the package `onnx`, built on Google's library, writes and reads."""
from __future__ import annotations

import pytest
from onnx import NodeProto, TensorProto

from stmask_deploy.protobuf import bytes_key, read_fields, read_varint, write_field, write_varint


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 2**31, 2**63])
def test_numbers_survive(value: int) -> None:
    encoded = write_varint(value)
    assert read_varint(memoryview(encoded), 0) == (value, len(encoded))


def test_what_is_written_is_what_the_library_reads() -> None:
    node = NodeProto.FromString(write_field(1, "x") + write_field(1, "weight") + write_field(4, "Conv"))
    assert (list(node.input), node.op_type) == (["x", "weight"], "Conv")
    tensor = TensorProto.FromString(write_field(1, 256) + write_field(1, 3) + write_field(9, b"\x00\xff" * 200))
    assert (list(tensor.dims), tensor.raw_data) == ([256, 3], b"\x00\xff" * 200)


def test_fields_are_those_that_the_library_writes() -> None:
    node = NodeProto(op_type="Add", input=["a", "bc"])
    fields = list(read_fields(node.SerializeToString()))
    assert [(field.number, bytes(field.value)) for field in fields] == [(1, b"a"), (1, b"bc"), (4, b"Add")]
    assert b"".join(field.whole for field in fields) == node.SerializeToString()
    assert [field.integer for field in read_fields(write_field(7, 300))] == [300]


@pytest.mark.parametrize("message", [b"\x0b", b"\x0a\x05ab", b"\xff", b"\x09\x00"])
def test_no_messages(message: bytes) -> None:
    with pytest.raises(ValueError, match="not a protobuf message"):
        list(read_fields(message))


def test_numbers_have_at_most_64_bits() -> None:
    largest = TensorProto(dims=[-1]).SerializeToString()  # all 64 bits are set, in ten bytes
    assert [field.integer for field in read_fields(largest)] == [2**64 - 1]
    with pytest.raises(ValueError, match="a number of more than 64 bits"):
        read_varint(memoryview(b"\xff" * 10 + b"\x00"), 0)


def test_a_key_precedes_its_value() -> None:
    assert bytes_key(7, 3) + b"abc" == write_field(7, b"abc")
