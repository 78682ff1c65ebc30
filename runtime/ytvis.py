"""`results.json`: the sequence-level result list of YouTube-VIS, collected frame by frame."""
from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stmask_deploy.atomic import atomic_file
from stmask_deploy.datasets.segmentation import Segmentation

from .result import FrameResult

MAX_ITEMS = 100_000_000  # identities times frames; the list would have 0.6 GB of nulls alone
BATCH_ROWS = 250_000  # masks in memory at a time while a list is written: 150 MB, 20 objects in each of 12 500 frames


@dataclass
class _Sequence:
    """The data collected for one identity."""

    score_sum: float = 0.0
    class_counts: Counter[int] = field(default_factory=Counter)
    segmentations: dict[int, Segmentation] = field(default_factory=dict)  # frame index -> RLE


class YtvisCollector:
    """Collects frames into one entry per identity; of each mask only the RLE is kept.

    An entry holds `video_id`, `instance_id`, `score` (mean over the frames in which the identity is shown),
    `category_id` (its most frequent class, 1-based; the first seen on ties) and `segmentations` (one COCO RLE or null
    per frame).
    """

    def __init__(self, video_id: int = 0) -> None:
        self._video_id = video_id
        self._num_frames = 0
        self._sequences: dict[int, _Sequence] = {}

    def add(self, result: FrameResult) -> None:
        """Add one frame; skipped indices count as frames in which nothing is shown."""
        self.add_rows(result.index, zip(result.ids.tolist(), result.class_ids.tolist(), result.scores.tolist(),
                                        result.segmentations, strict=True))

    def add_record(self, frame: Mapping[str, Any], identities: Container[int]) -> None:
        """Add what one frame has of these identities, as `results.jsonl` has it."""
        self.add_rows(frame["index"], ((row["id"], row["class_id"], row["score"], row["segmentation"])
                                       for row in frame["instances"] if row["id"] in identities))

    def add_rows(self, index: int, rows: Iterable[tuple[int, int, float, Segmentation]]) -> None:
        """Add frame `index` as rows of (identity, class id, score, mask)."""
        self._num_frames = max(self._num_frames, index + 1)
        for identity, class_id, score, segmentation in rows:
            sequence = self._sequences.get(identity)
            if sequence is None:
                sequence = self._sequences[identity] = _Sequence()
            sequence.score_sum += score
            sequence.class_counts[class_id] += 1
            sequence.segmentations[index] = segmentation

    def span(self, num_frames: int) -> None:
        """Extend the video to at least `num_frames` frames; nothing is shown in those after the last one added."""
        self._num_frames = max(self._num_frames, num_frames)

    def entries(self) -> list[dict[str, Any]]:
        """The result list, with identities in the order of their first appearance."""
        return list(self.iter_entries())

    def iter_entries(self) -> Iterator[dict[str, Any]]:
        """The same, entry by entry."""
        return map(self._entry, self._sequences)

    def _entry(self, identity: int) -> dict[str, Any]:
        sequence = self._sequences[identity]
        return {"video_id": self._video_id, "score": sequence.score_sum / len(sequence.segmentations),
                "category_id": sequence.class_counts.most_common(1)[0][0],
                "segmentations": [sequence.segmentations.get(index) for index in range(self._num_frames)],
                "instance_id": identity}


def write_result_list(path: Path, frames: Callable[[], Iterable[Mapping[str, Any]]], rows: Mapping[int, int],
                      num_frames: int) -> None:
    """Write the list of a long video; `path` only appears once it is complete.

    In memory are at most `BATCH_ROWS` masks at a time, or those of one identity, which an entry holds together.

    Args:
        path: the file.
        frames: reads the frames as `results.jsonl` has them; called again for each such part.
        rows: identity -> number of frames in which it is shown, in the order of first appearance.
        num_frames: length of the video; nothing is shown in frames that were not read.

    Raises:
        OutputError: it exists, or it cannot be written.
    """
    separator = b"\n"
    with atomic_file(path) as file:
        file.write(b"[")
        for identities in _batches(rows):
            collector = YtvisCollector()
            for frame in frames():
                collector.add_record(frame, identities)
            collector.span(num_frames)
            for entry in collector.iter_entries():
                file.write(separator + json.dumps(entry, allow_nan=False).encode())
                separator = b",\n"
        file.write(b"\n]\n")


def _batches(rows: Mapping[int, int]) -> Iterator[set[int]]:
    """Identities in order, in sets of at most `BATCH_ROWS` rows or one identity."""
    batch: set[int] = set()
    num_rows = 0
    for identity, count in rows.items():
        if batch and num_rows + count > BATCH_ROWS:
            yield batch
            batch, num_rows = set(), 0
        batch.add(identity)
        num_rows += count
    if batch:
        yield batch
