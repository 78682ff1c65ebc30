"""The recorded tensors, computed by PyTorch and by exported graphs."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from recording import Recording

from stmask_deploy.config import ModelConfig
from stmask_deploy.geometry import decode_boxes, make_anchors, xyxy_to_cxcywh
from stmask_deploy.models.frames import prepare_frames
from stmask_deploy.models.stmask import STMask
from stmask_deploy.runtime.loading import Bundle

Array = NDArray[Any]


def network_frames(folder: Path, config: ModelConfig, count: int) -> list[NDArray[np.uint8]]:
    """The first pictures of a clip at the network's size, (H, W, 3) BGR."""
    height, width = config.input_size
    return [cv2.resize(cv2.imread(str(path)), (width, height)) for path in sorted(folder.glob("*.png"))[:count]]


def priors(config: ModelConfig, index: Array) -> Array:
    return make_anchors(config.level_sizes, config.anchor_shapes, config.anchor_scales)[index]


def torch_values(model: STMask, recording: Recording) -> dict[str, Array]:
    """Every recorded tensor, from the PyTorch network."""
    config = recording.config
    index = torch.from_numpy(recording.values["anchor_index"])
    with torch.no_grad():
        first, second = (model(prepare_frames(torch.from_numpy(frame)[None], config))
                         for frame in network_frames(recording.frames, config, 2))
        anchors = first.anchors
        found = {"loc": anchors.box_deltas[0, index], "conf": anchors.class_probs[0, index],
                 "mask_coeff": anchors.mask_coeffs[0, index], "track": anchors.embeddings[0, index],
                 "centerness": anchors.centerness[0, index, None]}
        maps = {"proto": first.prototypes[0], "fpn_p4": first.fpn[0], "t2s_p4": first.temporal[0]}
        if recording.info["temporal"]:
            boxes = torch.from_numpy(recording.values["temporal_boxes"])
            net = model.TemporalNet
            pooled = net.pool_boxes(net.fuse(first.fpn, second.fpn, first.temporal, second.temporal), boxes)
            found["temporal_loc"], found["temporal_coeff"] = net.predict(pooled)
            found["temporal_roi_features"] = pooled[:recording.num_rois, ::recording.channel_step, ::3, ::3]
    values = {name: value.numpy() for name, value in found.items()}
    values["priors"] = priors(config, recording.values["anchor_index"])
    return {**values, **thin_maps(recording, {name: value.numpy() for name, value in maps.items()}),
            **shifted_boxes(recording, values)}


def graph_values(bundle: Bundle, recording: Recording) -> dict[str, Array]:
    """The recorded maps and temporal outputs, from the graphs of a bundle."""
    frames = network_frames(recording.frames, recording.config, 2)
    first, second = (bundle.frame.run({"frame": frame[None]}) for frame in frames)
    maps = {"proto": first["prototypes"], "fpn_p4": first["fpn"][0], "t2s_p4": first["temporal"][0]}
    values = thin_maps(recording, maps)
    if bundle.temporal is not None and recording.info["temporal"]:
        before = {f"prev_{name}": first[name] for name in ("fpn", "temporal")}
        now = {name: second[name] for name in ("fpn", "temporal")}
        deltas = bundle.temporal.run({**before, **now, "boxes": recording.values["temporal_boxes"]})
        values |= {"temporal_loc": deltas["box_deltas"], "temporal_coeff": deltas["coeff_deltas"]}
    return {**values, **shifted_boxes(recording, values), **anchor_values(first, recording)}


def anchor_values(outputs: dict[str, Array], recording: Recording) -> dict[str, Array]:
    """Recorded tensors over anchors, where every anchor leaves the frame graph; otherwise nothing.

    Boxes leave the graph decoded, so `loc` is not among them; the background is what the classes leave over.
    """
    order = np.argsort(outputs["anchor_index"])
    index = recording.values["anchor_index"]
    if len(order) <= index.max():
        return {}
    rows = order[index]
    classes = outputs["class_scores"][rows]
    return {"conf": np.concatenate([1 - classes.sum(axis=1, keepdims=True), classes], axis=1),
            "mask_coeff": outputs["mask_coeffs"][rows], "track": outputs["embeddings"][rows],
            "centerness": outputs["centerness"][rows, None]}


def thin_maps(recording: Recording, maps: dict[str, Array]) -> dict[str, Array]:
    """Maps as sparsely as they were recorded; `proto` is HWC, the others CHW."""
    thin = {"proto": maps["proto"][::recording.proto_step, ::recording.proto_step]}
    for name in ("fpn_p4", "t2s_p4"):
        thin[name] = maps[name][::recording.channel_step, ::2, ::2]
    return {name: value for name, value in thin.items() if name in recording.values}


def shifted_boxes(recording: Recording, values: dict[str, Array]) -> dict[str, Array]:
    """The previous boxes moved by the temporal network's deltas."""
    if "temporal_loc" not in values:
        return {}
    moved = decode_boxes(values["temporal_loc"], xyxy_to_cxcywh(recording.values["temporal_boxes"]))
    return {"temporal_shifted_boxes": moved}
