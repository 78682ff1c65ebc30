"""Verification of every anchor: of a few pictures, the candidates may all lie on a few levels."""
from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from stmask_deploy.bundle import METADATA_KEY, BundleDescription
from stmask_deploy.openvino_library import import_openvino
from stmask_deploy.runtime.opening import open_backend

from .openvino_ir import save_ir
from .verification import Arrays, Deviation, spread

ROW_OUTPUTS = ("boxes", "class_scores", "centerness", "mask_coeffs", "embeddings")
ROWS = "all_anchors"  # name of the constant that takes the place of K


def level_checks(folder: Path, description: BundleDescription, backend: str, precision: str,
                 pictures: Iterable[tuple[NDArray[np.uint8], Arrays]]) -> Iterator[Deviation]:
    """Compare the rows of all anchors with PyTorch, by the mean error of each level.

    The mean, because embeddings of the background may be next to nothing before they are normalised. It shows a level
    that is computed wrongly, not a single row.

    Args:
        folder: the bundle.
        description: of the bundle.
        backend, precision: of the frame graph.
        pictures: inputs of the frame graph, each with PyTorch's values of all anchors by name.
    """
    model = description.model
    sizes = [height * width * model.anchors_per_cell for height, width in model.level_sizes]
    with tempfile.TemporaryDirectory() as scratch:
        path = _write_copy(description.graph_path(folder, "frame", backend, precision), model.num_anchors,
                           Path(scratch))
        graph = open_backend(backend, path, device="cpu", precision=precision, outputs=(*ROW_OUTPUTS, "anchor_index"))
        for frame, reference in pictures:
            found = graph.run({"frame": frame})
            order = np.argsort(found["anchor_index"])
            is_whole = np.array_equal(found["anchor_index"][order], np.arange(model.num_anchors))
            yield Deviation("levels/anchor_index", order.shape, 0.0, "" if is_whole else "not every anchor once")
            for name in ROW_OUTPUTS if is_whole else ():
                difference = np.abs(reference[name].astype(np.float64) - found[name][order])
                levels = [level.mean() for level in np.split(difference, np.cumsum(sizes)[:-1])]
                error = float(np.max(levels)) / spread(reference[name])  # NaN if a level is
                yield Deviation(f"levels/{name}", difference.shape, error)
        del graph  # before its files


def _write_copy(graph: Path, count: int, folder: Path) -> Path:
    """Write a copy of a frame graph (`.onnx` or `.xml`) that returns `count` rows, as many as there are anchors."""
    path = folder / graph.name
    if graph.suffix == ".onnx":
        _write_onnx(graph, count, path)
    else:
        _write_ir(graph, count, path)
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


def _write_ir(graph: Path, count: int, path: Path) -> None:
    openvino = import_openvino()
    from openvino import opset13 as op

    model = openvino.Core().read_model(graph)
    [selection] = [node for node in model.get_ordered_ops() if node.get_type_name() == "TopK"]
    before = selection.input_value(1)
    rows = op.constant(np.full(list(before.get_shape()), count, before.get_element_type().to_dtype()))
    selection.input(1).replace_source_output(rows.output(0))
    model.validate_nodes_and_infer_types()
    own = BundleDescription.from_json(model.get_rt_info(METADATA_KEY).astype(str), str(graph))
    save_ir(model, path, False, {}, own.export_id)
