"""Export of one PyTorch module to one checked ONNX model."""
from __future__ import annotations

import contextlib
import io
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxsim
import torch
from torch import Tensor, nn

from stmask_deploy.errors import InputError, StmaskError
from stmask_deploy.wrapped_interrupt import raise_interrupt

from .lowering import Dcn, lower, translation_table

Arrays = dict[str, Any]

MIN_COMMON_ROWS = 0.98  # minimum share of rows that must be the same after simplification
OPSETS = (20, 21)  # 20 has the current GridSample; for opset 22, ONNX Runtime 1.32 has no RoiAlign on the CPU


def export_module(
    module: nn.Module, inputs: Sequence[Tensor], input_names: Sequence[str], output_names: Sequence[str], *,
    dynamic: Mapping[str, Mapping[int, str]] | None = None, opset: int = 20, dcn: Dcn = Dcn.NATIVE,
    simplify: bool = True, rows: Sequence[str] = (),
) -> onnx.ModelProto:
    """Trace `module`, lower its operators, simplify and check the result.

    Args:
        module: in evaluation mode; returns a tuple of tensors.
        inputs: example inputs: their shapes and types are traced, and checks use similar values.
        input_names, output_names: names of the graph's inputs and outputs, in order.
        dynamic: input name -> {axis: name of the dimension}, for axes of any length including 0.
        opset: ONNX operator set, one of `OPSETS`.
        dcn: how deformable convolution is written.
        simplify: run onnxsim and check that the outputs stay equal.
        rows: outputs whose row order may change with rounding errors; the first one identifies the rows.

    Raises:
        InputError: onnxruntime, which the check needs, is not installed.
        StmaskError: the simplified graph has different outputs, or the checker rejects the graph.
    """
    handled = sys.exc_info()[1]
    try:
        with _quiet():
            program = torch.onnx.export(
                module, tuple(inputs), dynamo=True, opset_version=opset, verbose=False, optimize=True,
                custom_translation_table=translation_table(), input_names=list(input_names),
                output_names=list(output_names), dynamic_shapes=_dynamic_shapes(input_names, dynamic or {}))
    except Exception as error:
        raise_interrupt(error, handled)
        raise
    if program is None:
        raise StmaskError("torch.onnx.export returned no program")
    model: onnx.ModelProto = program.model_proto
    _drop_traces(model)
    lower(model, dcn)
    if simplify:
        model = _simplify(model, inputs, input_names, rows)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise StmaskError(f"the exported graph does not pass onnx.checker: {error}") from error
    return model


def _dynamic_shapes(names: Sequence[str], dynamic: Mapping[str, Mapping[int, str]]) -> tuple[Any, ...] | None:
    if not dynamic:
        return None
    return tuple({axis: torch.export.Dim(dim, min=0) for axis, dim in dynamic[name].items()}
                 if name in dynamic else None for name in names)


def _drop_traces(model: onnx.ModelProto) -> None:
    """Remove the exporter's notes about Python source lines, which contain paths of the exporting machine."""
    for entries in (model.graph.node, model.graph.value_info, model.graph.input, model.graph.output,
                    model.graph.initializer):
        for entry in entries:
            del entry.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.metadata_props[:]


def _simplify(model: onnx.ModelProto, inputs: Sequence[Tensor], names: Sequence[str],
              rows: Sequence[str]) -> onnx.ModelProto:
    """Apply onnxsim's constant folding and fusion, and check that the outputs agree on fresh inputs."""
    try:
        with _quiet():
            simplified: onnx.ModelProto = onnxsim.simplify(model)[0]
    except OSError:  # of the disk
        raise
    except Exception as error:  # onnxsim's errors have no narrower common base
        raise StmaskError(f"onnxsim failed ({error}); export with --no-simplify and report it") from error
    del simplified.graph.input[:]  # onnxsim may have given a dynamic dimension another name in some of them
    simplified.graph.input.extend(model.graph.input)
    rng = np.random.default_rng(1)
    feeds = {name: _fresh_like(value, rng) for name, value in zip(names, inputs, strict=True)}
    before, after = run_onnx(model, feeds), run_onnx(simplified, feeds)
    if rows:
        before, after = _same_rows(before, after, rows)
    for name, old in before.items():
        new = after[name]
        finite = old[np.isfinite(old)].astype(np.float64)  # others are told by the comparison with PyTorch
        span = float(np.ptp(finite)) if finite.size else 0.0
        if old.shape != new.shape or not np.allclose(old, new, rtol=1e-4, atol=1e-4 * max(span, 1e-6), equal_nan=True):
            raise StmaskError(f"onnxsim changed the output {name!r}; export with --no-simplify and report it")
    return simplified


def _same_rows(before: Arrays, after: Arrays, outputs: Sequence[str]) -> tuple[Arrays, Arrays]:
    """Both sets of outputs reduced to their common rows, in the same order; rows of nearly equal score may swap."""
    names = outputs[0]
    _, old, new = np.intersect1d(before[names], after[names], return_indices=True)
    if len(old) < MIN_COMMON_ROWS * len(before[names]):
        raise StmaskError(f"onnxsim changed the output {names!r}; export with --no-simplify and report it")

    def pick(values: Arrays, rows: Any) -> Arrays:
        return {name: value[rows] if name in outputs else value for name, value in values.items()}

    return pick(before, old), pick(after, new)


def _fresh_like(value: Tensor, rng: np.random.Generator) -> Any:
    if value.dtype == torch.uint8:
        return rng.integers(0, 256, tuple(value.shape), dtype=np.uint8)
    if not value.is_floating_point():
        return value.numpy()  # row indices, which must stay in range
    return (value.numpy() * rng.uniform(0.9, 1.1, tuple(value.shape))).astype(np.float32)


def require_onnxruntime() -> Any:
    """The package `onnxruntime`, which runs every exported graph as a check.

    Raises:
        InputError: it is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError("exporting and verifying need ONNX Runtime, which is not installed: "
                         "pip install 'stmask-deploy[export,cpu]'") from error
    return onnxruntime


def run_onnx(model: onnx.ModelProto, feeds: Mapping[str, Any]) -> Arrays:
    """Run a model in ONNX Runtime and return all outputs by name."""
    onnxruntime = require_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [info.name for info in model.graph.output]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the libraries' output and warnings; their errors are still raised."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
