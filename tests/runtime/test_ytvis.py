from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from results_sample import frame_result

from stmask_deploy.errors import OutputError
from stmask_deploy.runtime import ytvis
from stmask_deploy.runtime.result import FrameResult
from stmask_deploy.runtime.results_jsonl import frame_record
from stmask_deploy.runtime.ytvis import YtvisCollector, write_result_list

RECORDED = Path(__file__).parent.parent / "data" / "generated" / "generated.json"


def recorded_frame(index: int, rows: list[dict[str, Any]]) -> Any:
    """What the collector reads of a `FrameResult`, with recorded values."""
    return SimpleNamespace(index=index, ids=np.array([row["id"] for row in rows], np.int64),
                           class_ids=np.array([row["label"] for row in rows], np.int64),
                           scores=np.array([row["score"] for row in rows], np.float32),
                           segmentations=[row["segmentation"] for row in rows])


def assert_same_list(recorded: dict[str, Any]) -> None:
    collector = YtvisCollector()
    for index, rows in enumerate(recorded["tracks"]):
        collector.add(recorded_frame(index, rows))
    entries, expected = collector.entries(), recorded["ytvis"]
    assert len(entries) == len(expected) > 0
    for entry, wanted in zip(entries, expected, strict=True):
        assert {**entry, "score": None} == {**wanted, "score": None}
        assert entry["score"] == pytest.approx(wanted["score"], abs=1e-7)


def test_the_recorded_list() -> None:
    assert_same_list(json.loads(RECORDED.read_text()))


@pytest.mark.reference
@pytest.mark.parametrize("run", ["r50_ada", "r50_ali", "r50_perclass", "r50_notemporal"])
def test_the_recorded_lists_of_the_reference(reference_dir: Path, run: str) -> None:
    assert_same_list(json.loads((reference_dir / f"{run}.json").read_text()))


def collect(frames: list[FrameResult], video_id: int = 0) -> YtvisCollector:
    collector = YtvisCollector(video_id)
    for frame in frames:
        collector.add(frame)
    return collector


def disc(index: int, ids: list[int], class_ids: list[int], scores: list[float]) -> FrameResult:
    return frame_result([(0.2 + 0.2 * row, 0.5, 0.1) for row in range(len(ids))], index=index, ids=ids,
                        class_ids=class_ids, scores=scores)


def test_score_class_and_gaps() -> None:
    frames = [disc(0, [5], [2], [0.2]), disc(1, [], [], []), disc(2, [9, 5], [3, 1], [0.6, 0.4]),
              disc(4, [5], [1], [0.9])]
    first, second = collect(frames, video_id=7).entries()
    assert (first["video_id"], first["instance_id"], first["category_id"]) == (7, 5, 1)
    assert first["score"] == pytest.approx(0.5, abs=1e-6)  # over the three frames where it is shown
    assert [rle is None for rle in first["segmentations"]] == [False, True, False, True, False]
    assert first["segmentations"][2] == frames[2].segmentations[1]
    assert (second["instance_id"], second["category_id"], second["score"]) == (9, 3, pytest.approx(0.6))
    assert [rle is None for rle in second["segmentations"]] == [True, True, False, True, True]


def test_frames_of_a_results_file() -> None:
    frames = [disc(0, [5, 2], [2, 1], [0.25, 0.75]), disc(1, [], [], []), disc(3, [2], [1], [0.5])]
    collector = YtvisCollector()
    for frame in frames:
        collector.add_record(json.loads(json.dumps(frame_record(frame))), {2, 5})
    assert collector.entries() == collect(frames).entries()


def test_frames_after_the_last_one_are_gaps_too() -> None:
    collector = collect([disc(1, [5], [2], [0.2])])
    collector.span(4)
    collector.span(3)
    assert [rle is None for rle in collector.entries()[0]["segmentations"]] == [True, False, True, True]
    collector.add(disc(2, [0], [1], [0.5]))  # within them
    assert [rle is None for rle in collector.entries()[0]["segmentations"]] == [True, False, True, True]


def test_the_first_class_wins_a_tie() -> None:
    frames = [disc(index, [0], [class_id], [0.5]) for index, class_id in enumerate([3, 1, 1, 3])]
    assert collect(frames).entries()[0]["category_id"] == 3


def written(path: Path, frames: list[FrameResult], num_frames: int) -> tuple[list[dict[str, Any]], int]:
    """The list in the file that `write_result_list` writes, and how often it has read the frames."""
    lines = [json.dumps(frame_record(frame)) for frame in frames]
    rows = Counter(identity for frame in frames for identity in frame.ids.tolist())
    reads = 0

    def read() -> Iterator[dict[str, Any]]:
        nonlocal reads
        reads += 1
        return map(json.loads, lines)

    write_result_list(path, read, rows, num_frames)
    entries: list[dict[str, Any]] = json.loads(path.read_text())
    return entries, reads


@pytest.mark.parametrize(("batch_rows", "reads"), [(100, 1), (6, 1), (5, 2), (4, 2), (3, 3), (2, 3), (1, 3)])
def test_the_file_is_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_rows: int, reads: int) -> None:
    monkeypatch.setattr(ytvis, "BATCH_ROWS", batch_rows)
    frames = [disc(0, [5, 2], [2, 1], [0.2, 0.9]), disc(1, [2], [1], [0.8]), disc(3, [2, 9, 5], [1, 1, 2], [0.8] * 3)]
    collector = collect(frames)  # 2, 3 and 1 rows of 5, 2 and 9
    collector.span(6)
    entries, num_reads = written(tmp_path / "results.json", frames, 6)
    assert num_reads == reads
    for entry, expected in zip(entries, collector.entries(), strict=True):
        assert {**entry, "score": None} == {**expected, "score": None}
        assert entry["score"] == pytest.approx(expected["score"], abs=1e-6)  # written with fewer digits
    with pytest.raises(OutputError, match="exists already"):
        written(tmp_path / "results.json", frames, 6)


@pytest.mark.parametrize("frames", [[], [disc(0, [], [], [])]])
def test_nothing_shown(tmp_path: Path, frames: list[FrameResult]) -> None:
    assert written(tmp_path / "results.json", frames, 1) == ([], 0)
