"""A copy of a frame graph that returns every anchor: of a few pictures, the candidates may all lie on a few levels."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from stmask_deploy.bundle import weights_mark

ROWS = "all_anchors"  # name of the constant that takes the place of K


def write_all_anchors(graph: Path, export_id: str, count: int, folder: Path) -> Path:
    """Write a copy of the frame graph `graph` (`.onnx` or `.xml`) into `folder`, with K = `count`, all its anchors."""
    path = folder / graph.name
    if graph.suffix == ".onnx":
        _write_onnx(graph, count, path)
    else:
        _write_ir(graph, export_id, count, path)
    return path


def _write_onnx(graph: Path, count: int, path: Path) -> None:
    model = onnx.load(graph)
    [selection] = [node for node in model.graph.node if node.op_type == "TopK"]
    before = next(numpy_helper.to_array(one) for one in model.graph.initializer if one.name == selection.input[1])
    model.graph.initializer.append(numpy_helper.from_array(np.array([count], np.int64), ROWS))
    selection.input[1] = ROWS
    del model.graph.value_info[:]  # shapes with the old K
    for output in model.graph.output:
        sizes = output.type.tensor_type.shape.dim
        if sizes and sizes[0].dim_value == int(before[0]):
            sizes[0].dim_value = count
    onnx.save(model, path)


def _write_ir(graph: Path, export_id: str, count: int, path: Path) -> None:
    import openvino
    from openvino import opset13 as op

    model = openvino.Core().read_model(graph)
    [selection] = [node for node in model.get_ordered_ops() if node.get_type_name() == "TopK"]
    before = selection.input_value(1)
    rows = op.constant(np.full(list(before.get_shape()), count, before.get_element_type().to_dtype()))
    selection.input(1).replace_source_output(rows.output(0))
    model.validate_nodes_and_infer_types()
    openvino.save_model(model, path, compress_to_fp16=False)
    with open(path.with_suffix(".bin"), "ab") as file:
        file.write(weights_mark(export_id))
