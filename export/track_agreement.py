"""Comparison of the objects shown by two runs over one clip, the first of which is the reference: PyTorch's."""
from __future__ import annotations

from collections import Counter
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stmask_deploy.bundle import BundleDescription
from stmask_deploy.models.stmask import STMask
from stmask_deploy.one_to_one import one_to_one
from stmask_deploy.runtime.frame_source import Damage
from stmask_deploy.runtime.loading import open_bundle
from stmask_deploy.runtime.model import Model
from stmask_deploy.runtime.options import RunOptions
from stmask_deploy.runtime.result import FrameResult
from stmask_deploy.runtime.sources import open_source
from stmask_deploy.wording import counted

from .torch_backend import torch_bundle
from .verify import TOLERANCES, exported_graphs

SCORE_TOLERANCE, BOX_TOLERANCE_PX, MASK_IOU = 1e-3, 0.5, 0.99


@dataclass(frozen=True)
class TrackAgreement:
    """Number of rows (instances in a frame) of both runs, and of matching rows with corresponding identities."""

    frames: int
    reference_rows: int
    found_rows: int
    matched: int

    @property
    def recall(self) -> float:
        return self.matched / self.reference_rows if self.reference_rows else 1.0

    @property
    def precision(self) -> float:
        return self.matched / self.found_rows if self.found_rows else 1.0

    def line(self) -> str:
        rows = counted(self.reference_rows, "row")
        return (f"{counted(self.frames, 'frame')}, {rows} in PyTorch, {self.found_rows} here, "
                f"{self.matched} the same (recall {self.recall:.4f}, precision {self.precision:.4f})")


class TrackComparison:
    """Frame-by-frame comparison; identities of the two runs are matched one to one over the whole clip."""

    def __init__(self) -> None:
        self._frames = self._reference_rows = self._found_rows = 0
        self._pairs: list[tuple[int, int, int, int]] = []  # frame, reference row, reference id, found id

    def add(self, reference: FrameResult, found: FrameResult) -> None:
        """Add one frame of both runs."""
        frame, self._frames = self._frames, self._frames + 1
        self._reference_rows += len(reference)
        self._found_rows += len(found)
        for i in range(len(reference)):
            near = ((found.class_ids == reference.class_ids[i])
                    & (np.abs(found.scores - reference.scores[i]) <= SCORE_TOLERANCE)
                    & (np.abs(found.boxes_px - reference.boxes_px[i]).max(axis=1, initial=0) <= BOX_TOLERANCE_PX))
            for j in np.flatnonzero(near):
                if _same_mask(reference.masks[i], found.masks[j]):
                    self._pairs.append((frame, i, int(reference.ids[i]), int(found.ids[j])))

    def result(self) -> TrackAgreement:
        votes = Counter((a, b) for _, _, a, b in self._pairs)
        partner = dict(one_to_one(pair for pair, _ in votes.most_common()))
        matched = {(frame, row) for frame, row, a, b in self._pairs if partner.get(a) == b}
        return TrackAgreement(self._frames, self._reference_rows, self._found_rows, len(matched))


def compare_tracks(folder: Path, description: BundleDescription, model: STMask, video: Path, max_frames: int
                   ) -> tuple[dict[str, TrackAgreement], Damage]:
    """Track a video in PyTorch and with every graph set of a bundle that is compared (`verify.TOLERANCES`).

    Args:
        folder: the bundle.
        description: of the bundle.
        model: the network that it was exported from.
        video: file or image folder.
        max_frames: maximum number of frames to track.

    Returns:
        Name of the graph set -> agreement with PyTorch, and the damage of the video.

    Raises:
        InputError: a graph or the video cannot be opened.
        DeviceError: a backend's library is missing.
        StmaskError: a backend fails to run a graph.
    """
    bundles = {name: open_bundle(folder, backend, device="cpu", precision=precision)
               for backend, precision, name in exported_graphs(description) if name in TOLERANCES}
    comparisons = {name: TrackComparison() for name in bundles}
    with ExitStack() as stack:
        runs, sources = [], []
        for bundle in (torch_bundle(model, description), *bundles.values()):
            sources.append(stack.enter_context(open_source(video)))
            tracker = Model(bundle, RunOptions(memory="exact"))
            runs.append(stack.enter_context(closing(tracker.track_frames(sources[-1], max_frames=max_frames))))
        for reference, *found in zip(*runs, strict=True):
            for comparison, tracked in zip(comparisons.values(), found, strict=True):
                comparison.add(reference.result, tracked.result)
        return {name: comparison.result() for name, comparison in comparisons.items()}, sources[0].damage


def _same_mask(a: np.ndarray, b: np.ndarray) -> bool:
    union = int((a | b).sum())
    return int((a & b).sum()) >= MASK_IOU * union or int((a ^ b).sum()) <= 3
