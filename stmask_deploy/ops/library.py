"""The operator library `stmask`: operations that the exporter must see as single nodes.

They are ordinary differentiable PyTorch functions. Registered as composite operators they stay whole in an exported
program, so that `stmask_deploy.export` can choose how to lower each one, and the model needs to know nothing of ONNX.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

LIBRARY = torch.library.Library("stmask", "DEF")


def composite_operator(schema: str) -> Callable[[Callable[..., Any]], Any]:
    """Register the decorated function under `stmask::` with `schema` and return the callable operator."""

    def register(function: Callable[..., Any]) -> Any:
        name = LIBRARY.define(schema)
        LIBRARY.impl(name, function, "CompositeImplicitAutograd")
        return getattr(torch.ops.stmask, name.split("::")[-1]).default

    return register
