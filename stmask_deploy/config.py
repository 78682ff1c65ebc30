"""`ModelConfig`: everything that determines what an STMask network computes, as plain values."""
from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from .errors import InputError
from .plain_values import from_plain
from .tracking_config import TrackingConfig
from .wording import is_unicode, on_one_line

# No real network comes near these limits. Files beyond them are damaged or hostile and would waste time and memory.
MAX_CLASSES = 10_000
MAX_SIZE = 65_536  # channels
MIN_SIDE, MAX_SIDE = 32, 8192  # pixels of the input: up to 8K video
MAX_PIXELS = 2 ** 27  # of a picture or frame, 134 million: a file of 500 bytes can claim any size
MAX_COUNT = 1000  # blocks, layers, cells per side
MAX_ANCHORS = 100  # kernels, and scales
MAX_NAME = 255  # characters of a class name, which every row of the results repeats


class Calibration(str, Enum):
    """Feature calibration for bounding boxes (FCB, paper section 3.1.2) of one head branch."""

    NONE = "none"
    ADAPTIVE = "adaptive"  # offsets from a 1x1 convolution on the box deltas (eq. 5)
    ALIGNED = "aligned"  # closed-form offsets from the box deltas (eq. 6-8)


class CenternessOrder(str, Enum):
    """How the centerness map of one pyramid level is flattened before it is matched to the anchors by position."""

    RELEASED = "released"  # kernel, row, column: the released code's mismatch, in its training as in its scores
    ANCHOR = "anchor"  # row, column, kernel: the order of every other prediction


@dataclass(frozen=True)
class TemporalConfig:
    """Temporal fusion module (paper section 3.2)."""

    level: int = 1  # pyramid level it reads: 0 is P3, 1 is P4
    patch_size: int = 11  # side d of the correlation window, odd
    roi_size: int = 7
    widths: tuple[int, int, int] = (512, 512, 1024)


@dataclass(frozen=True)
class ModelConfig:
    """A complete description of one network. Sizes are (height, width); colours are RGB in [0, 255]."""

    class_names: tuple[str, ...]  # foreground classes; class id i + 1 is class_names[i], 0 is the background
    stem_width: int = 64
    depths: tuple[int, ...] = (3, 4, 6, 3)
    widths: tuple[int, ...] = (64, 128, 256, 512)
    expansion: int = 4
    deformable_blocks: tuple[tuple[int, int], ...] = ()  # (stage, block) whose conv2 is a DCNv2
    fpn_width: int = 256
    num_downsamples: int = 2  # pyramid levels below P5
    proto_width: int = 256
    num_prototypes: int = 32
    head_width: int = 256
    tower_depth: int = 2
    kernel_shapes: tuple[tuple[int, int], ...] = ((3, 3), (3, 5), (5, 3))
    anchor_shapes: tuple[tuple[float, float], ...] = ((3, 3), (3, 5), (5, 3))  # per kernel, in cells of the level
    anchor_scales: tuple[float, ...] = (1.0,)  # every kernel predicts one anchor per scale
    class_calibration: Calibration = Calibration.NONE
    mask_calibration: Calibration = Calibration.NONE
    track_calibration: Calibration = Calibration.NONE
    embedding_dim: int = 128
    centerness_order: CenternessOrder = CenternessOrder.RELEASED
    temporal: TemporalConfig | None = TemporalConfig()
    tracking: TrackingConfig = TrackingConfig()
    input_size: tuple[int, int] = (360, 640)
    pixel_mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    pixel_std: tuple[float, float, float] = (58.395, 57.12, 57.375)

    def __post_init__(self) -> None:
        checks = [
            (len(self.class_names) >= 1, "class_names must name at least one class"),
            (len(self.depths) == len(self.widths) == 4, "depths and widths must name the four stages C2 to C5, got "
             f"{len(self.depths)} and {len(self.widths)}"),
            (len(self.anchor_shapes) == len(self.kernel_shapes) >= 1, "one anchor shape per kernel shape is needed"),
            (len(self.anchor_scales) >= 1, "anchor_scales must hold at least one scale"),
            (all(MIN_SIDE <= side <= MAX_SIDE for side in self.input_size),
             f"sides of input_size must be {MIN_SIDE} to {MAX_SIDE} pixels, got {self.input_size}"),
            (all(is_unicode(name) for name in self.class_names), "class_names must be valid Unicode"),
            (all(name.strip() and on_one_line(name) == name for name in self.class_names),
             "class_names must not be empty or hold line breaks or other control characters"),
            (all(len(name) <= MAX_NAME for name in self.class_names),
             f"a class name must have at most {MAX_NAME} characters"),
            (max(len(self.kernel_shapes), len(self.anchor_scales)) <= MAX_ANCHORS,
             f"kernel_shapes and anchor_scales must hold at most {MAX_ANCHORS} each"),
            (all(0 <= s < len(self.depths) and 0 <= b < self.depths[s] for s, b in self.deformable_blocks),
             f"deformable_blocks {self.deformable_blocks} name blocks that depths {self.depths} do not have"),
            (self.temporal is None or 0 <= self.temporal.level < self.num_levels,
             f"temporal.level must be in 0..{self.num_levels - 1}"),
            (self.temporal is None or self.temporal.patch_size % 2 == 1, "temporal.patch_size must be odd"),
            (self.temporal is None or self.tracking.tracker != "frame", "the tracker of a network with temporal fusion "
             "must propagate; runs may still ask for the frame tracker"),
            (len(self.class_names) <= MAX_CLASSES, f"class_names must name at most {MAX_CLASSES} classes"),
            (len(set(self.class_names)) == len(self.class_names), "class_names must not name a class twice"),
            (min(self.pixel_std) > 0, f"pixel_std must be positive, got {self.pixel_std}"),
            (all(side > 0 for shape in (*self.anchor_shapes, self.anchor_scales) for side in shape),
             "anchor_shapes and anchor_scales must be positive"),
            *self._range_checks(),
        ]
        for good, message in checks:
            if not good:
                raise InputError(f"model configuration: {message}")

    def _range_checks(self) -> list[tuple[bool, str]]:
        """(good, message) for every count and size."""
        temporal = self.temporal or TemporalConfig()
        sizes: dict[str, tuple[int, ...]] = {name: (getattr(self, name),) for name in (
            "stem_width", "expansion", "fpn_width", "proto_width", "num_prototypes", "head_width", "embedding_dim")}
        sizes |= {"widths": self.widths, "temporal.widths": temporal.widths}
        counts = {"depths": self.depths, "kernel_shapes": tuple(side for shape in self.kernel_shapes for side in shape),
                  "temporal.patch_size": (temporal.patch_size,), "temporal.roi_size": (temporal.roi_size,)}
        counts_or_none = {"num_downsamples": (self.num_downsamples,), "tower_depth": (self.tower_depth,),
                          "deformable_blocks": tuple(index for block in self.deformable_blocks for index in block)}
        ranges = ((sizes, 1, MAX_SIZE), (counts, 1, MAX_COUNT), (counts_or_none, 0, MAX_COUNT))
        return [(all(low <= value <= high for value in values), f"{name} must be in {low}..{high}, got {values}")
                for group, low, high in ranges for name, values in group.items()]

    @property
    def num_classes(self) -> int:
        """Number of classes, including the background."""
        return len(self.class_names) + 1

    @property
    def num_levels(self) -> int:
        """Number of pyramid levels: three laterals (P3 to P5) and the downsampled ones below them."""
        return 3 + self.num_downsamples

    @property
    def anchors_per_cell(self) -> int:
        return len(self.kernel_shapes) * len(self.anchor_scales)

    @property
    def padded_size(self) -> tuple[int, int]:
        """`input_size` rounded up to multiples of 32."""
        height, width = (math.ceil(side / 32) * 32 for side in self.input_size)
        return height, width

    @property
    def level_sizes(self) -> tuple[tuple[int, int], ...]:
        """(height, width) of P3, P4, ...: stride 8, then halved, rounded up (3x3 convolutions, stride 2, padding 1)."""
        height, width = (side // 8 for side in self.padded_size)
        sizes = []
        for _ in range(self.num_levels):
            sizes.append((height, width))
            height, width = math.ceil(height / 2), math.ceil(width / 2)
        return tuple(sizes)

    @property
    def num_anchors(self) -> int:
        """Number of anchors on all levels."""
        return self.anchors_per_cell * sum(height * width for height, width in self.level_sizes)

    @property
    def has_local_branches(self) -> bool:
        """Whether an anchor's mask coefficients and embedding depend only on a fixed window of cells around it.

        Branches calibrated to the boxes (FCB) sample wherever the regressed box lies instead.
        """
        return self.mask_calibration is self.track_calibration is Calibration.NONE

    @property
    def own_tracking(self) -> TrackingConfig:
        """Tracking that runs use by default: `tracking`, or the frame tracker for networks without temporal fusion."""
        can_propagate = self.temporal is not None
        return self.tracking if can_propagate or self.tracking.tracker == "frame" else TrackingConfig("frame")

    @property
    def variant(self) -> str:
        """A readable name in the style of the paper: `STMask R50-DCN FCA FCB(ada: class) TF`."""
        layers = 3 * sum(self.depths) + 2  # three per block, the stem and the original classifier
        backbone = f"R{layers}" + ("-DCN" if self.deformable_blocks else "")
        parts = ["STMask", backbone]
        if len(set(self.kernel_shapes)) > 1:
            parts.append("FCA")
        short = {Calibration.ADAPTIVE: "ada", Calibration.ALIGNED: "ali"}
        branches = {"class": self.class_calibration, "mask": self.mask_calibration, "track": self.track_calibration}
        calibrated = {branch: short[kind] for branch, kind in branches.items() if kind is not Calibration.NONE}
        if calibrated:
            kinds = "/".join(sorted(set(calibrated.values())))
            parts.append(f"FCB({kinds}: {'+'.join(calibrated)})")
        if self.temporal is not None:
            parts.append("TF")
        return " ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """This configuration as plain JSON values."""
        return {key: value.value if isinstance(value, Enum) else value
                for key, value in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelConfig:
        """The inverse of `to_dict`.

        Raises:
            InputError: a key is unknown or missing, or a value has the wrong form.
        """
        return from_plain(cls, values, "model configuration")
