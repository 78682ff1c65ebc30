"""Rows of scripts that measure graphs of a bundle on the CPU."""
from __future__ import annotations

from stmask_deploy.bench.row import Row
from stmask_deploy.errors import InputError


def parse_rows(text: str) -> list[Row]:
    """The rows of a text such as `onnxruntime:f32,openvino:bf16`.

    Raises:
        InputError: one is malformed or unknown, or names a device.
    """
    rows = [Row.parse(one) for one in text.split(",")]
    for row in rows:
        if row.device != "auto":
            raise InputError(f"row {row}: this is measured on the CPU; give BACKEND:PRECISION")
    return rows
