"""Bundles built by hand: graphs of a few operators with a bundle's inputs and outputs, so that no network is needed.

The frame graph finds `count` objects in every picture that is not black. Brightness moves them to the right and is
what its feature maps hold; the temporal graph's box deltas are twice the change of brightness between two frames.
"""
from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from stmask_deploy.bundle import (
    DESCRIPTION_FILE,
    FRAME_OUTPUTS,
    INSTANCE_INPUTS,
    INSTANCE_OUTPUTS,
    METADATA_KEY,
    TEMPORAL_INPUTS,
    TEMPORAL_OUTPUTS,
    BundleDescription,
)
from stmask_deploy.config import ModelConfig

ROWS = 6
CONFIG = ModelConfig(class_names=("cat", "dog"), fpn_width=4, head_width=5, num_prototypes=4, embedding_dim=8,
                     input_size=(40, 64))  # padded to 64x64, masks 16x16, maps 4x4
BOXES = np.array([[0.05, 0.05, 0.25, 0.25], [0.4, 0.05, 0.6, 0.3], [0.05, 0.4, 0.3, 0.55], [0, 0, 1, 1], [0, 0, 1, 1],
                  [0, 0, 1, 1]], np.float32)
SCORES = np.array([[0.9, 0.05], [0.1, 0.8], [0.7, 0.2], [0.6, 0.1], [0.5, 0.1], [0.4, 0.1]], np.float32)
SHAPES: dict[str, list[int | str]] = {
    "boxes": [ROWS, 4], "class_scores": [ROWS, 2], "centerness": [ROWS], "mask_coeffs": [ROWS, 4],
    "embeddings": [ROWS, 8], "anchor_index": [ROWS], "num_candidates": [], "prototypes": [16, 16, 4],
    "p3": [1, 4, 8, 8], "shared": [86, 5], "fpn": [1, 4, 4, 4], "temporal": [1, 5, 4, 4]}
# By row of the frame graph; the instance graph has the same by anchor.
ROW_CONSTANTS = {"mask_coeffs_": np.full((ROWS, 4), 2, np.float32), "embeddings_": np.eye(ROWS, 8, dtype=np.float32),
                 "anchor_index_": np.arange(ROWS)[::-1].copy()}


def describe(**changes: Any) -> BundleDescription:
    values: dict[str, Any] = {"export_id": "0123abcd", "model": CONFIG, "checkpoint_name": "tiny.pth",
                              "checkpoint_sha256": "00" * 32, "max_candidates": ROWS, "candidate_threshold": 0.05,
                              "opset": 20, "dcn": "native", "tool_version": "0.1.0"}
    return BundleDescription(**{**values, **changes})


def frame_graph(count: int, **changes: Any) -> onnx.ModelProto:
    """`count` candidates in every picture that is not black; `changes` replace constants by name."""
    constants = {
        "base_boxes": BOXES, "scale": np.float32(1 / 255), "dark": np.float32(0.01), "shift": np.float32(0.2),
        "axes": np.array([1, 0, 1, 0], np.float32), "count": np.int64(count),
        "class_scores_": SCORES, "centerness_": np.full(ROWS, 0.95, np.float32),
        **ROW_CONSTANTS, "prototypes_": np.ones((16, 16, 4), np.float32),
        "p3_": np.ones((1, 4, 8, 8), np.float32), "shared_": np.ones((86, 5), np.float32),
        "fpn_": np.ones((1, 4, 4, 4), np.float32), "temporal_": np.ones((1, 5, 4, 4), np.float32), **changes}
    node = helper.make_node
    nodes = [
        node("Cast", ["frame"], ["pixels"], to=TensorProto.FLOAT),
        node("ReduceMean", ["pixels"], ["mean"], keepdims=0),
        node("Mul", ["mean", "scale"], ["level"]),
        node("Mul", ["axes", "shift"], ["direction"]),
        node("Mul", ["direction", "level"], ["offset"]),
        node("Add", ["base_boxes", "offset"], ["boxes"]),
        node("Greater", ["level", "dark"], ["lit"]),
        node("Cast", ["lit"], ["lit_int"], to=TensorProto.INT64),
        node("Mul", ["lit_int", "count"], ["num_candidates"]),
        *(node("Mul", [f"{name}_", "level"], [name]) for name in ("shared", "fpn", "temporal")),
        *(node("Identity", [f"{name}_"], [name]) for name in
          ("class_scores", "centerness", "mask_coeffs", "embeddings", "anchor_index", "prototypes", "p3")),
    ]
    integers = ("anchor_index", "num_candidates")
    outputs = [helper.make_tensor_value_info(name, TensorProto.INT64 if name in integers else TensorProto.FLOAT,
                                             SHAPES[name]) for name in FRAME_OUTPUTS]
    frame = helper.make_tensor_value_info("frame", TensorProto.UINT8, [1, 40, 64, 3])
    return _model("frame", nodes, [frame], outputs, constants)


def prototype_graph() -> onnx.ModelProto:
    """Every cell of P3 four times."""
    nodes = [helper.make_node("Resize", ["p3", "", "twice"], ["large"], mode="nearest"),
             helper.make_node("Transpose", ["large"], ["last"], perm=[0, 2, 3, 1]),
             helper.make_node("Squeeze", ["last", "first_axis"], ["prototypes"])]
    p3 = helper.make_tensor_value_info("p3", TensorProto.FLOAT, [1, 4, "h", "w"])
    prototypes = helper.make_tensor_value_info("prototypes", TensorProto.FLOAT, ["2h", "2w", 4])
    return _model("prototypes", nodes, [p3], [prototypes], {"twice": np.array([1, 1, 2, 2], np.float32),
                                                            "first_axis": np.array([0])})


def instance_graph(**changes: Any) -> onnx.ModelProto:
    """The frame graph's mask coefficients and embeddings of the anchors that are asked for."""
    rows = ROW_CONSTANTS | {name: value for name, value in changes.items() if name in ROW_CONSTANTS}
    anchors = rows["anchor_index_"]
    tables = {}
    for name in INSTANCE_OUTPUTS:
        tables[f"{name}_"] = np.zeros((anchors.max() + 1, *rows[f"{name}_"].shape[1:]), np.float32)
        tables[f"{name}_"][anchors] = rows[f"{name}_"]
    nodes = [helper.make_node("Gather", [f"{name}_", "anchor_index"], [name]) for name in INSTANCE_OUTPUTS]
    shapes: dict[str, list[int | str]] = {"shared": SHAPES["shared"], "anchor_index": ["n"]}
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64 if name == "anchor_index" else TensorProto.FLOAT,
                                            shapes[name]) for name in INSTANCE_INPUTS]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", SHAPES[name][1]])
               for name in INSTANCE_OUTPUTS]
    return _model("instances", nodes, inputs, outputs, tables)


def temporal_graph() -> onnx.ModelProto:
    node = helper.make_node
    nodes = [
        *(node("ReduceMean", [name], [f"mean_{name}"], keepdims=0) for name in TEMPORAL_INPUTS[:4]),
        node("Sub", ["mean_fpn", "mean_prev_fpn"], ["change_fpn"]),
        node("Sub", ["mean_temporal", "mean_prev_temporal"], ["change_temporal"]),
        node("Add", ["change_fpn", "change_temporal"], ["change"]),
        node("Mul", ["boxes", "zero"], ["nothing"]),
        node("Add", ["nothing", "change"], ["box_deltas"]),
        node("Identity", ["nothing"], ["coeff_deltas"]),
    ]
    shapes: dict[str, list[int | str]] = {"fpn": SHAPES["fpn"], "temporal": SHAPES["temporal"]}
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes.get(name.removeprefix("prev_"), ["n", 4]))
              for name in TEMPORAL_INPUTS]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in TEMPORAL_OUTPUTS]
    return _model("temporal", nodes, inputs, outputs, {"zero": np.float32(0)})


def _model(name: str, nodes: list[onnx.NodeProto], inputs: list[onnx.ValueInfoProto],
           outputs: list[onnx.ValueInfoProto], constants: dict[str, Any]) -> onnx.ModelProto:
    initializers = [numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()]
    graph = helper.make_graph(nodes, name, inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def save_graph(model: onnx.ModelProto, path: Path, description: BundleDescription | None) -> None:
    if description is not None:
        helper.set_model_props(model, {METADATA_KEY: description.to_json()})
    onnx.save(model, path)


def save_ir(onnx_path: Path, path: Path, description: BundleDescription | None) -> None:
    import openvino

    model = openvino.convert_model(onnx_path)
    if description is not None:
        model.set_rt_info(description.to_json(), METADATA_KEY)
    path.parent.mkdir(exist_ok=True)
    openvino.save_model(model, path, compress_to_fp16=False)
    if description is not None:
        with open(path.with_suffix(".bin"), "ab") as file:
            file.write(f"stmask {description.export_id}".encode())


def write_bundle(folder: Path, *, count: int = 3, has_temporal: bool = True, openvino: bool = False,
                 constants: dict[str, Any] | None = None, **changes: Any) -> Path:
    """A bundle in `folder`; `changes` go into its description, `constants` into its frame graph."""
    if not has_temporal:
        changes["model"] = dataclasses.replace(CONFIG, temporal=None)
    description = describe(**changes)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / DESCRIPTION_FILE).write_text(description.to_json())
    graphs = {"frame": frame_graph(count, **(constants or {})), "prototypes": prototype_graph(),
              "instances": instance_graph(**(constants or {})), "temporal": temporal_graph()}
    for role in description.roles:
        path = description.graph_path(folder, role, "onnxruntime")
        save_graph(graphs[role], path, description)
        if openvino:
            save_ir(path, description.graph_path(folder, role, "openvino"), description)
    return folder


def picture(brightness: int, size: tuple[int, int] = (80, 128)) -> np.ndarray[Any, Any]:
    return np.full((*size, 3), brightness, np.uint8)


def save_pictures(folder: Path, brightnesses: Sequence[int]) -> Path:
    folder.mkdir()
    for index, brightness in enumerate(brightnesses):
        cv2.imwrite(str(folder / f"{index}.png"), picture(brightness))
    return folder
