"""Infers the variant of a network from the names and shapes of its parameters."""
from __future__ import annotations

import math
import re
from collections.abc import Mapping

from ..config import MAX_CLASSES, Calibration, ModelConfig, TemporalConfig
from ..errors import InputError

Shapes = Mapping[str, tuple[int, ...]]

HEAD = "prediction_layers.0."
BRANCHES = ("conf_layer", "mask_layer", "track_layer")
INDEX = r"(\d{1,3})"  # of a layer; no real network has a thousand, and a hostile name must not ask for a billion
MOST_NAMED = 20  # missing parameters listed in a message
ASPECT_RATIOS = (1.0, 1 / 2, 2.0)  # height / width of anchors without FCA (paper section 4.1)


def infer_config(shapes: Shapes, anchor_ratios: tuple[float, ...] | None = None) -> ModelConfig:
    """The configuration of the network that these parameters belong to.

    Shapes determine backbone depth, widths and deformable blocks, pyramid, prototypes, kernel shapes, anchors per
    kernel, calibration of each branch, number of classes, embedding, correlation window. The rest takes the released
    values: input size, normalisation, anchor shapes and scales, level and RoI size of the temporal network, order of
    the centerness map. Classes are named `class_1`, ....

    Args:
        shapes: parameter shapes by name.
        anchor_ratios: see `anchor_shapes`.

    Raises:
        InputError: parameters that every STMask network has are missing (the message names up to 20), or
            one has an impossible shape.
    """
    depths = tuple(_count(shapes, rf"backbone\.layers\.{stage}\.{INDEX}\.")
                   for stage in range(_count(shapes, rf"backbone\.layers\.{INDEX}\.")))
    num_kernels = _count(shapes, rf"prediction_layers\.0\.bbox_layer\.{INDEX}\.")
    absent = [name for name, count in (("backbone.layers.*", len(depths)), (f"{HEAD}bbox_layer.*", num_kernels))
              if not count]
    if absent:
        raise InputError(f"no parameters named {' and '.join(absent)}: this is not an STMask checkpoint")
    _check_complete(shapes, len(depths), num_kernels)
    widths = tuple(_shape(shapes, f"backbone.layers.{stage}.0.conv1.weight", 4)[0] for stage in range(len(depths)))
    deformable = tuple((stage, block) for stage, depth in enumerate(depths) for block in range(depth)
                       if f"backbone.layers.{stage}.{block}.conv2.conv_offset_mask.weight" in shapes)
    head_width = _shape(shapes, HEAD + "upfeature.0.weight", 4)[0]
    boxes = [_shape(shapes, f"{HEAD}bbox_layer.{k}.weight", 4) for k in range(num_kernels)]
    kernels = tuple((shape[2], shape[3]) for shape in boxes)
    num_scales = max(boxes[0][0] // 4, 1)
    sizes = {branch: _branch(shapes, branch, num_scales) for branch in BRANCHES}
    num_classes = sizes["conf_layer"][0]
    if not 2 <= num_classes <= MAX_CLASSES + 1:
        raise InputError(f"the class layer has {num_classes} outputs; "
                         f"the background and 1 to {MAX_CLASSES} classes are needed")
    return ModelConfig(
        class_names=tuple(f"class_{i}" for i in range(1, num_classes)),
        stem_width=_shape(shapes, "backbone.conv1.weight", 4)[0],
        depths=depths,
        widths=widths,
        expansion=max(_shape(shapes, "backbone.layers.0.0.conv3.weight", 4)[0] // widths[0], 1),
        deformable_blocks=deformable,
        fpn_width=_shape(shapes, "fpn.lat_layers.0.weight", 4)[0],
        num_downsamples=_count(shapes, rf"fpn\.downsample_layers\.{INDEX}\."),
        proto_width=_shape(shapes, "proto_net.0.weight", 4)[0],
        num_prototypes=_shape(shapes, "proto_net.10.weight", 4)[0],
        head_width=head_width,
        tower_depth=sum(bool(re.fullmatch(rf"prediction_layers\.0\.bbox_extra\.{INDEX}\.weight", name))
                        for name in shapes),
        kernel_shapes=kernels,
        anchor_shapes=anchor_shapes(kernels, anchor_ratios),
        anchor_scales=anchor_scales(num_scales),
        class_calibration=sizes["conf_layer"][1],
        mask_calibration=sizes["mask_layer"][1],
        track_calibration=sizes["track_layer"][1],
        embedding_dim=sizes["track_layer"][0],
        temporal=_temporal(shapes, head_width),
    )


def anchor_shapes(kernels: tuple[tuple[int, int], ...], ratios: tuple[float, ...] | None = None
                  ) -> tuple[tuple[float, float], ...]:
    """(height, width) in cells of each kernel's anchor.

    With feature calibration for anchors (FCA), or with a single kernel, an anchor has its kernel's shape. Several
    kernels of the same shape do not determine their anchors: each keeps the kernel's area but has its own aspect ratio.

    Args:
        kernels: (height, width) of each.
        ratios: height / width, one per kernel; None means `ASPECT_RATIOS` if several kernels of one shape need them.

    Raises:
        InputError: the number of ratios differs from that of kernels, or the kernels differ in shape.
    """
    is_calibrated = len(set(kernels)) > 1
    if ratios is not None and is_calibrated:
        raise InputError("--anchor-ratios is for networks without FCA; here each kernel shape fixes its anchor")
    if is_calibrated or (ratios is None and len(kernels) == 1):
        return tuple((float(height), float(width)) for height, width in kernels)
    ratios = ASPECT_RATIOS if ratios is None else ratios
    if len(ratios) != len(kernels):
        what = "1 kernel needs one anchor ratio" if len(kernels) == 1 else (
            f"{len(kernels)} kernels of one shape need as many anchor ratios")
        raise InputError(f"{what}, got {len(ratios)}; give them with --anchor-ratios")
    return tuple((height * math.sqrt(ratio), width / math.sqrt(ratio))
                 for (height, width), ratio in zip(kernels, ratios, strict=True))


def anchor_scales(count: int) -> tuple[float, ...]:
    """Scales of the anchors of one kernel: 2^(i / count), as in RetinaNet and YOLACT++."""
    return tuple(2 ** (i / count) for i in range(count))


def _check_complete(shapes: Shapes, num_stages: int, num_kernels: int) -> None:
    """Raise InputError listing every missing parameter that the variant is inferred from."""
    names = ["backbone.conv1.weight", *(f"backbone.layers.{stage}.0.conv1.weight" for stage in range(num_stages)),
             "backbone.layers.0.0.conv3.weight", "fpn.lat_layers.0.weight", "proto_net.0.weight", "proto_net.10.weight",
             f"{HEAD}upfeature.0.weight", *(f"{HEAD}bbox_layer.{k}.weight" for k in range(num_kernels))]
    for branch in BRANCHES:
        last = "conv.weight" if f"{HEAD}{branch}.0.conv_adaption.weight" in shapes else "weight"
        names.append(f"{HEAD}{branch}.0.{last}")
    if any(name.startswith("TemporalNet.") for name in shapes):
        names += [f"TemporalNet.conv{number}.weight" for number in (1, 2, 3)]
    missing = [name for name in names if name not in shapes]
    if missing:
        lines = [f"  missing     {name}" for name in missing[:MOST_NAMED]]
        lines += [f"  ... and {len(missing) - MOST_NAMED} more"] if len(missing) > MOST_NAMED else []
        raise InputError(f"this is not an STMask checkpoint, or it is incomplete: it lacks {len(missing)} of the "
                         "parameters that tell its variant\n" + "\n".join(lines))


def _branch(shapes: Shapes, layer: str, num_scales: int) -> tuple[int, Calibration]:
    """(values per anchor, calibration) of a prediction layer."""
    prefix = f"{HEAD}{layer}.0."
    if prefix + "conv_adaption.weight" in shapes:
        kind = Calibration.ADAPTIVE if prefix + "conv_offset.weight" in shapes else Calibration.ALIGNED
        return _shape(shapes, prefix + "conv.weight", 4)[0], kind
    return _shape(shapes, prefix + "weight", 4)[0] // num_scales, Calibration.NONE


def _temporal(shapes: Shapes, head_width: int) -> TemporalConfig | None:
    if not any(name.startswith("TemporalNet.") for name in shapes):
        return None
    first = _shape(shapes, "TemporalNet.conv1.weight", 4)
    window = first[1] - 2 * head_width
    patch_size = math.isqrt(max(window, 0))
    if window <= 0 or patch_size**2 != window or patch_size % 2 == 0:
        raise InputError(f"TemporalNet.conv1 reads {first[1]} channels, which is not an odd square and twice the "
                         f"head's {head_width}: this is not an STMask temporal network")
    return TemporalConfig(patch_size=patch_size, widths=(
        first[0], _shape(shapes, "TemporalNet.conv2.weight", 4)[0], _shape(shapes, "TemporalNet.conv3.weight", 4)[0]))


def _shape(shapes: Shapes, name: str, rank: int) -> tuple[int, ...]:
    if len(shapes[name]) != rank or 0 in shapes[name]:
        raise InputError(f"parameter {name} has shape {list(shapes[name])}, expected {rank} dimensions, none of them 0")
    return shapes[name]


def _count(shapes: Shapes, pattern: str) -> int:
    """1 + the largest index that `pattern` captures at the start of a name; 0 without a match."""
    return 1 + max((int(match[1]) for name in shapes if (match := re.match(pattern, name))), default=-1)
