"""How much the masks of results and of the truth overlap, in every frame of a video."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from ..datasets.segmentation import Segmentation
from ..types import IntArray

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
Masks = Sequence[Segmentation | None]  # of one object, one a frame, None where it is not visible


@dataclass(frozen=True, eq=False)
class Overlap:
    """Areas and intersections in pixels; null and empty masks have an area of 0."""

    intersections: IntArray  # (frames, n, g)
    areas: IntArray  # (frames, n) of the results
    truth_areas: IntArray  # (frames, g)

    @classmethod
    def measure(cls, results: Sequence[Masks], truth: Sequence[Masks], num_frames: int) -> Overlap:
        """Of n results and g tracks of one video, each with a mask or None for every frame."""
        intersections = np.zeros((num_frames, len(results), len(truth)), np.int64)
        areas, truth_areas = _areas(results, num_frames), _areas(truth, num_frames)
        for frame in range(num_frames):
            rows, columns = np.flatnonzero(areas[frame]).tolist(), np.flatnonzero(truth_areas[frame]).tolist()
            if rows and columns:
                # pycocotools divides by the area of the first where the second is a crowd: undone, that is exact.
                shares = coco_mask.iou([results[row][frame] for row in rows],
                                       [truth[column][frame] for column in columns], [1] * len(columns))
                counts = np.rint(shares * areas[frame, rows][:, None]).astype(np.int64)
                intersections[frame][np.ix_(rows, columns)] = counts
        return cls(intersections, areas, truth_areas)

    def track_iou(self, is_crowd: BoolArray) -> FloatArray:
        """(n, g) sum of the intersections over the sum of the unions; over the result's area for a crowd.

        Args:
            is_crowd: (g,) tracks that stand for many objects, of which a result covers a few.
        """
        inside, own = self.intersections.sum(0), self.areas.sum(0)[:, None]
        return _ratio(inside, np.where(is_crowd, own, own + self.truth_areas.sum(0) - inside))

    def frame_iou(self) -> FloatArray:
        """(frames, n, g) mask IoU in every frame; 0 where either is not visible."""
        unions = self.areas[:, :, None] + self.truth_areas[:, None, :] - self.intersections
        return _ratio(self.intersections, unions)

    def select(self, rows: IntArray, columns: IntArray) -> Overlap:
        """Of the results and tracks at these positions."""
        return Overlap(self.intersections[:, rows[:, None], columns], self.areas[:, rows], self.truth_areas[:, columns])

    @property
    def mean_areas(self) -> FloatArray:
        """(n,) mean area of each result over the frames in which it is visible, 0 if it never is."""
        return _ratio(self.areas.sum(0), (self.areas > 0).sum(0))

    @property
    def mean_truth_areas(self) -> FloatArray:
        """(g,) the same of the tracks."""
        return _ratio(self.truth_areas.sum(0), (self.truth_areas > 0).sum(0))


def _areas(tracks: Sequence[Masks], num_frames: int) -> IntArray:
    areas = np.zeros((num_frames, len(tracks)), np.int64)
    for column, masks in enumerate(tracks):
        visible = [frame for frame, mask in enumerate(masks) if mask is not None]
        if visible:
            areas[visible, column] = coco_mask.area([masks[frame] for frame in visible])
    return areas


def _ratio(numerator: IntArray, denominator: IntArray) -> FloatArray:
    return np.divide(numerator, denominator, out=np.zeros(np.shape(numerator)), where=denominator > 0)
