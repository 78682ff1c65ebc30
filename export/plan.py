"""Description of what an export would write (--dry-run)."""
from __future__ import annotations

from pathlib import Path

import torch

from stmask_deploy.bundle import BundleDescription, has_own_graph
from stmask_deploy.config import Calibration, ModelConfig
from stmask_deploy.graph_tensors import GraphTensor, graph_tensors
from stmask_deploy.models.stmask import STMask, build_stmask

from .exporter import ExportOptions
from .lowering import Dcn


def assumptions(config: ModelConfig) -> list[str]:
    """The settings that cannot be inferred from a checkpoint's tensors, as `setting (--option): value` lines."""
    lines = [f"input size (--input-size): {_by(config.input_size)}, padded to {_by(config.padded_size)}",
             f"anchors (--anchor-ratios, --anchor-scales): {', '.join(map(_anchor, config.anchor_shapes))} cells, "
             f"scales {', '.join(f'{scale:.4g}' for scale in config.anchor_scales)}",
             f"centerness order (--centerness-order): {config.centerness_order.value}",
             f"pixel mean and std (RGB): {config.pixel_mean}, {config.pixel_std}"]
    if config.temporal is not None:
        lines.append(f"temporal network (--temporal-level, --roi-size): reads P{3 + config.temporal.level}, "
                     f"RoIs of {config.temporal.roi_size}x{config.temporal.roi_size}")
    lines.append(f"tracking, unless stmask-run is told otherwise (--tracking): {config.own_tracking}")
    return lines


def plan_lines(description: BundleDescription, options: ExportOptions) -> list[str]:
    """Lines of text: inputs, outputs, special operators and sizes of all graphs.

    Args:
        description: returned by `check_export`.
        options: given to it.
    """
    config = description.model
    with torch.device("meta"):
        model = build_stmask(config)
    lines = [f"opset {options.opset}, deformable convolution as {options.dcn.value}, "
             f"{config.num_anchors} anchors on {config.num_levels} levels"]
    for role in description.roles:
        inputs, _ = description.tensor_names(role)
        lines.append(f"{role}.onnx  {_megabytes(model, role):.1f} MB")
        lines += [f"  {'in' if name in inputs else 'out':3s} {name:15s} {_words(tensor)}{' BGR' * (name == 'frame')}"
                  for name, tensor in graph_tensors(description, role).items()]
        lines.append(f"  operators: {', '.join(_operators(config, options.dcn, role))}")
    if options.openvino_weights is not None:
        half = 0.5 if options.openvino_weights == "f16" else 1.0
        lines += [f"openvino/{role}.xml, .bin  {_megabytes(model, role) * half:.1f} MB, "
                  f"{options.openvino_weights} weights" for role in description.roles]
    return [*lines, *_other_precisions(description, options)]


def _other_precisions(description: BundleDescription, options: ExportOptions) -> list[str]:
    """Lines of text: the graph files of precisions other than f32."""
    notes = {"f16": "computes in f16, on GPUs"} if options.half else {}
    if options.int8 is not None:
        notes["int8"] = f"computes in int8, calibrated with {options.int8.calibration}"
    backends = ("onnxruntime",) if options.openvino_weights is None else ("onnxruntime", "openvino")
    return [f"{description.graph_path(Path(), role, backend, precision)}  {note}"
            for precision, note in notes.items() for backend in backends for role in description.roles
            if has_own_graph(role, backend, precision)]


def _words(tensor: GraphTensor) -> str:
    sizes = ", ".join(map(str, tensor.shape)) + ("," if len(tensor.shape) == 1 else "")
    return f"({sizes})" if tensor.dtype == "float32" else f"{tensor.dtype} ({sizes})"


def _operators(config: ModelConfig, dcn: Dcn, role: str) -> list[str]:
    if role == "temporal":
        return ["1 stmask::Correlation (function)", "1 RoiAlign"]
    if role in ("prototypes", "instances"):
        return ["standard ONNX only"]
    calibrated = sum(kind is not Calibration.NONE for kind in
                     (config.class_calibration, config.mask_calibration, config.track_calibration))
    plain = calibrated * len(config.kernel_shapes) * len(config.anchor_scales) * config.num_levels
    modulated = len(config.deformable_blocks)
    if dcn is Dcn.NATIVE:
        return [f"{plain + modulated} DeformConv"] if plain + modulated else ["standard ONNX only"]
    found = [f"{count} stmask::{name} (function)" for count, name in
             ((modulated, "ModulatedDeformConv"), (plain, "DeformConv")) if count]
    return found or ["standard ONNX only"]


def _megabytes(model: STMask, role: str) -> float:
    sizes = (value.numel() * value.element_size() for name, value in model.state_dict().items()
             if role in _readers(name))
    return float(sum(sizes)) / 1e6


def _readers(parameter: str) -> tuple[str, ...]:
    """Roles of the graphs that contain a parameter."""
    if parameter.startswith("TemporalNet."):
        return ("temporal",)
    if parameter.startswith("proto_net."):
        return ("frame", "prototypes")
    branches = tuple(f"prediction_layers.0.{name}_" for name in ("mask", "track"))
    return ("frame", "instances") if parameter.startswith(branches) else ("frame",)


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _anchor(shape: tuple[float, float]) -> str:
    return f"{shape[0]:.4g}x{shape[1]:.4g}"
