"""Model settings that cannot be inferred from the tensors, given by the user."""
from __future__ import annotations

import re
from dataclasses import dataclass, replace

from stmask_deploy.config import CenternessOrder, ModelConfig
from stmask_deploy.errors import InputError
from stmask_deploy.models.variant import anchor_shapes
from stmask_deploy.tracking_config import TrackingConfig
from stmask_deploy.wording import counted


@dataclass(frozen=True)
class Overrides:
    """Settings to override; None keeps the checkpoint's own or the released value."""

    input_size: tuple[int, int] | None = None  # (height, width)
    anchor_ratios: tuple[float, ...] | None = None  # height / width, one per kernel
    anchor_scales: tuple[float, ...] | None = None
    temporal_level: int | None = None  # 0 is P3
    roi_size: int | None = None
    centerness_order: CenternessOrder | None = None
    tracking: TrackingConfig | None = None

    def apply(self, config: ModelConfig) -> ModelConfig:
        """A copy of `config` with these settings.

        Raises:
            InputError: a setting does not fit the network.
        """
        if self.input_size is not None:
            config = replace(config, input_size=self.input_size)
        if self.anchor_ratios is not None:
            config = replace(config, anchor_shapes=anchor_shapes(config.kernel_shapes, self.anchor_ratios))
        if self.anchor_scales is not None:
            if len(self.anchor_scales) != len(config.anchor_scales):
                raise InputError(f"the network predicts {counted(len(config.anchor_scales), 'anchor')} per kernel, "
                                 f"--anchor-scales gives {len(self.anchor_scales)}")
            config = replace(config, anchor_scales=self.anchor_scales)
        if self.centerness_order is not None:
            config = replace(config, centerness_order=self.centerness_order)
        if self.tracking is not None:
            if config.temporal is None and self.tracking.tracker != "frame":
                raise InputError(f"--tracking {self.tracking.tracker}: this checkpoint has no temporal network, only "
                                 "the frame tracker can track with it")
            config = replace(config, tracking=self.tracking)
        return self._apply_temporal(config)

    def _apply_temporal(self, config: ModelConfig) -> ModelConfig:
        if self.temporal_level is None and self.roi_size is None:
            return config
        if config.temporal is None:
            raise InputError("--temporal-level and --roi-size: this checkpoint has no temporal network")
        temporal = config.temporal
        if self.temporal_level is not None:
            temporal = replace(temporal, level=self.temporal_level)
        if self.roi_size is not None:
            if self.roi_size < 1:
                raise InputError(f"--roi-size must be at least 1, got {self.roi_size}")
            temporal = replace(temporal, roi_size=self.roi_size)
        return replace(config, temporal=temporal)


def parse_numbers(text: str) -> tuple[float, ...]:
    """`1,0.5,2` -> floats, all positive; raises InputError."""
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"{text!r} is not a list of numbers, for instance 1,0.5,2") from error
    if not all(0 < number < float("inf") for number in numbers):
        raise InputError(f"{text!r}: every number must be positive")
    return numbers


def parse_level(text: str) -> int:
    """`P4` -> 1; raises InputError."""
    match = re.fullmatch(r"[pP](\d)", text.strip())
    if not match or int(match[1]) < 3:
        raise InputError(f"pyramid level {text!r} is not P3, P4, ...")
    return int(match[1]) - 3
