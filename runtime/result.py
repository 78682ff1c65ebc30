"""The result for one frame: identities, boxes and masks in pixels of the original picture."""
from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stmask_deploy.datasets.segmentation import Segmentation
from stmask_deploy.errors import InputError
from stmask_deploy.geometry import FrameGeometry
from stmask_deploy.types import Array, IntArray, TrackedInstances
from stmask_deploy.wording import counted

from .masks import MaskPatch, bilinear_axes, upsample_mask
from .rle import encode_patch


@dataclass(frozen=True, eq=False, repr=False)
class FrameResult:
    """The instances shown in one frame, k rows. Masks are computed lazily."""

    index: int  # of the frame, from 0
    time_s: float
    geometry: FrameGeometry
    class_names: tuple[str, ...]  # class id i + 1 is class_names[i]
    ids: IntArray  # (k,) int64 identities, constant over the video
    class_ids: IntArray  # (k,) int64, 1-based
    scores: Array  # (k,)
    boxes_px: Array  # (k, 4) xyxy, pixels of the original picture, clipped to it
    ages: IntArray  # (k,) int64, frames since the last detection; 0 if detected in this frame
    soft_masks: Array  # (k, Hm, Wm) in [0, 1] at prototype size, padding included

    @classmethod
    def from_tracked(cls, index: int, time_s: float, tracked: TrackedInstances, geometry: FrameGeometry,
                     class_names: tuple[str, ...]) -> FrameResult:
        """A result from a tracker's output, whose boxes are fractions of the padded frame."""
        shown = tracked.instances
        return cls(index, time_s, geometry, class_names, tracked.ids, shown.class_ids, shown.scores,
                   geometry.boxes_to_px(shown.boxes), tracked.ages, shown.masks)

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, rows: NDArray[np.bool_] | IntArray) -> FrameResult:
        """A new result with the chosen rows (boolean mask or indices); masks already computed are reused.

        Raises:
            InputError: `rows` is neither, or made for another number of rows.
        """
        refusal = "rows are chosen by a list of indices or a mask with one item each, not by "
        try:
            chosen_rows: NDArray[Any] = np.asarray(rows)
        except ValueError as error:  # lists of unequal length
            raise InputError(f"{refusal}lists of several lengths") from error
        if not chosen_rows.size and chosen_rows.dtype != np.bool_:
            chosen_rows = chosen_rows.astype(np.int64)
        if chosen_rows.ndim != 1 or chosen_rows.dtype.kind not in "biu":
            raise InputError(f"{refusal}{chosen_rows.dtype} of shape {chosen_rows.shape}")
        if chosen_rows.dtype == np.bool_ and len(chosen_rows) != len(self):
            raise InputError(f"a mask of {counted(len(chosen_rows), 'row')} does not fit a result with {len(self)}")
        try:
            indices = np.arange(len(self))[chosen_rows]
        except IndexError as error:
            raise InputError(f"the result has {counted(len(self), 'row')}: {error}") from error
        columns = {name: getattr(self, name)[indices] for name in
                   ("ids", "class_ids", "scores", "boxes_px", "ages", "soft_masks")}
        chosen = dataclasses.replace(self, **columns)
        for name in ("patches", "segmentations"):
            if name in self.__dict__:
                made = self.__dict__[name]
                chosen.__dict__[name] = type(made)(made[row] for row in indices.tolist())
        return chosen

    def __repr__(self) -> str:
        rows = zip(self.ids.tolist(), self.labels, self.scores.tolist(), strict=True)
        objects = "; ".join(f"{identity} {label} {score:.2f}" for identity, label, score in rows) or "nothing"
        return f"FrameResult(index={self.index}, time_s={self.time_s:.3f}: {objects})"

    @property
    def labels(self) -> list[str]:
        """(k) class names."""
        return [self.class_names[class_id - 1] for class_id in self.class_ids.tolist()]

    @property
    def origins(self) -> list[str]:
        """(k) "detected" (in this frame) or "propagated" (from an earlier one)."""
        return ["detected" if age == 0 else "propagated" for age in self.ages.tolist()]

    @cached_property
    def patches(self) -> tuple[MaskPatch, ...]:
        """(k) masks in pixels of the original picture, each cropped to its bounding rectangle."""
        rows, columns = bilinear_axes(self.geometry, self.soft_masks.shape[1:])
        return tuple(upsample_mask(mask, rows, columns) for mask in self.soft_masks)

    @cached_property
    def masks(self) -> NDArray[np.bool_]:
        """(k, H0, W0) masks in pixels of the original picture. `patches` needs far less memory."""
        masks = np.zeros((len(self), *self.geometry.original_hw), np.bool_)
        for mask, patch in zip(masks, self.patches, strict=True):
            h, w = patch.pixels.shape
            mask[patch.y:patch.y + h, patch.x:patch.x + w] = patch.pixels
        return masks

    @cached_property
    def segmentations(self) -> list[Segmentation]:
        """(k) masks in COCO's compressed RLE, `{"size": [H0, W0], "counts": str}`."""
        return [encode_patch(patch, self.geometry.original_hw) for patch in self.patches]
