"""Overlap between the masks of results and ground truth in every frame of a video."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from ..datasets.segmentation import Segmentation
from ..types import IntArray

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
Masks = Sequence[Segmentation | None]  # of one object, one per frame, None where it is not visible


@dataclass(frozen=True, eq=False)
class FrameOverlap:
    """Overlap in one frame of its visible objects: r results and c tracks."""

    rows: IntArray  # (r,) positions of the results, ascending
    columns: IntArray  # (c,) positions of the tracks, ascending
    intersections: IntArray  # (r, c) pixels


@dataclass(frozen=True, eq=False)
class Overlap:
    """Areas and intersections in pixels; missing and empty masks have area 0."""

    frames: tuple[FrameOverlap, ...]  # sparse, since a long video has many objects but few in a frame
    areas: IntArray  # (frames, n) of the results
    truth_areas: IntArray  # (frames, g)

    @classmethod
    def measure(cls, results: Sequence[Masks], truth: Sequence[Masks], num_frames: int) -> Overlap:
        """Measure n results and g tracks of one video, each with a mask or None for every frame."""
        areas, truth_areas = _areas(results, num_frames), _areas(truth, num_frames)
        frames = []
        for frame in range(num_frames):
            rows, columns = np.flatnonzero(areas[frame]), np.flatnonzero(truth_areas[frame])
            counts = np.zeros((len(rows), len(columns)), np.int64)
            if counts.size:
                # For a crowd pycocotools divides by the first mask's area; multiplying by it is exact.
                shares = coco_mask.iou([results[row][frame] for row in rows.tolist()],
                                       [truth[column][frame] for column in columns.tolist()], [1] * len(columns))
                counts[:] = np.rint(shares * areas[frame, rows][:, None])
            frames.append(FrameOverlap(rows, columns, counts))
        return cls(tuple(frames), areas, truth_areas)

    def track_iou(self) -> FloatArray:
        """(n, g) spatio-temporal IoU: the sum of the intersections over the sum of the unions."""
        inside = np.zeros((self.areas.shape[1], self.truth_areas.shape[1]), np.int64)
        for frame in self.frames:
            inside[np.ix_(frame.rows, frame.columns)] += frame.intersections
        return _ratio(inside, self.areas.sum(0)[:, None] + self.truth_areas.sum(0) - inside)

    def frame_ious(self) -> Iterator[tuple[IntArray, IntArray, FloatArray]]:
        """For every frame, the positions of the visible (r,) results and (c,) tracks, and their (r, c) mask IoU."""
        for frame, areas, truth_areas in zip(self.frames, self.areas, self.truth_areas, strict=True):
            unions = areas[frame.rows][:, None] + truth_areas[frame.columns] - frame.intersections
            yield frame.rows, frame.columns, _ratio(frame.intersections, unions)

    def select(self, rows: IntArray, columns: IntArray) -> Overlap:
        """The overlap of the results and tracks at these positions, which must be ascending."""
        frames = []
        for frame in self.frames:
            of_rows, of_columns = np.isin(frame.rows, rows), np.isin(frame.columns, columns)
            frames.append(FrameOverlap(np.searchsorted(rows, frame.rows[of_rows]),
                                       np.searchsorted(columns, frame.columns[of_columns]),
                                       frame.intersections[np.ix_(of_rows, of_columns)]))
        return Overlap(tuple(frames), self.areas[:, rows], self.truth_areas[:, columns])

    @property
    def mean_areas(self) -> FloatArray:
        """(n,) mean area of each result over the frames in which it is visible; 0 if it never is."""
        return _ratio(self.areas.sum(0), (self.areas > 0).sum(0))

    @property
    def mean_truth_areas(self) -> FloatArray:
        """(g,) the same for the tracks."""
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
