"""Detection without memory, tracking with it, and key frames."""
from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_bundles import picture

from stmask_deploy.errors import InputError
from stmask_deploy.runtime.backends import Backend
from stmask_deploy.runtime.loading import open_bundle
from stmask_deploy.runtime.model import Model, load
from stmask_deploy.runtime.options import RunOptions
from stmask_deploy.runtime.pipeline import Pipeline
from stmask_deploy.runtime.result import FrameResult
from stmask_deploy.runtime.timing import FrameTimes

SCORE = np.float32(0.9) * np.float32(0.95)  # of the first object, where it is detected
MAPS = ("p3", "fpn", "temporal")


class WatchedGraph:
    """A graph that remembers which outputs it was asked for."""

    def __init__(self, graph: Backend) -> None:
        self.metadata, self.device = graph.metadata, graph.device
        self.inputs, self.outputs = graph.inputs, graph.outputs
        self._graph = graph
        self.asked: list[set[str]] = []

    def run(self, inputs: Mapping[str, Any], outputs: Sequence[str] | None = None,
            keep: Collection[str] = ()) -> dict[str, Any]:
        self.asked.append(set(self.outputs if outputs is None else outputs))
        return self._graph.run(inputs, outputs, keep)


def watched(bundle: Path, **options: Any) -> tuple[Model, WatchedGraph]:
    opened = open_bundle(bundle)
    graph = WatchedGraph(opened.frame)
    return Model(dataclasses.replace(opened, frame=graph), RunOptions(**options)), graph


def steps(model: Model, brightnesses: Sequence[int]) -> list[FrameResult]:
    return [model.step(picture(brightness)) for brightness in brightnesses]


def shown(results: Sequence[FrameResult]) -> list[list[list[Any]]]:
    return [[each.tolist() for each in (result.ids, result.ages, result.scores, result.boxes_px)] for result in results]


def test_frames_may_be_detected_ahead_and_in_any_order(bundle: Path) -> None:
    brightnesses = [100, 110, 0, 120, 0, 90]
    opened, options = open_bundle(bundle), RunOptions(detect_every=2)
    pipelines = [Pipeline(opened, options.resolve(opened.description, is_live=False)) for _ in range(2)]
    plain = [pipelines[0].step(picture(brightness), index, 0.0, FrameTimes())
             for index, brightness in enumerate(brightnesses)]
    detected = {index: pipelines[1].detect(picture(brightness), index, FrameTimes())
                for index, brightness in reversed(list(enumerate(brightnesses)))}
    assert [detected[index].is_key for index in range(6)] == [True, False] * 3
    ahead = [pipelines[1].track(detected[index], index, 0.0) for index in range(6)]
    assert shown(ahead) == shown(plain)


@pytest.mark.parametrize("tracker", ["released", "paper"])
@pytest.mark.parametrize("every", [1, 2, 3, 4])
def test_every_kth_frame_is_detected_in_full(bundle: Path, tracker: str, every: int) -> None:
    model, graph = watched(bundle, tracker=tracker, detect_every=every)
    results = steps(model, [100, 105, 110, 115, 120, 125, 130])
    is_key = [index % every == 0 for index in range(7)]
    assert [result.origins for result in results] == [["detected" if key else "propagated"] * 3 for key in is_key]
    assert [result.ids.tolist() for result in results] == [[0, 1, 2]] * 7
    assert [result.ages.tolist() for result in results] == [[index % every] * 3 for index in range(7)]
    assert [asked > set(MAPS) for asked in graph.asked] == is_key
    assert all(asked == set(MAPS) for asked, key in zip(graph.asked, is_key, strict=True) if not key)


def test_no_graph_runs_between_key_frames_while_there_is_no_object(bundle: Path) -> None:
    """Before the first one, and after the last one was forgotten."""
    model, graph = watched(bundle, detect_every=3, max_age_shown=1, retire_after=1)
    results = steps(model, [0, 100, 0, 100] + [0] * 12 + [100] * 4)
    # Detected in frame 3 and missed in 6 and 9, where they are forgotten. Nothing is found in 12 and 15, but in 18.
    assert [len(result) for result in results] == [0] * 3 + [3] * 6 + [0] * 9 + [3] * 2
    assert [len(asked) > len(MAPS) for asked in graph.asked] == [
        True, *[True, False, False] * 2, True, True, True, True, False]
    assert results[1].masks.shape == results[0].masks.shape and results[-1].ids.tolist() == [3, 4, 5]


def test_a_frame_of_which_nothing_is_read_is_checked(bundle: Path) -> None:
    model = load(bundle, detect_every=3)
    model.step(picture(0))
    with pytest.raises(InputError, match="a frame must be"):
        model.step(np.zeros((2, 2), np.uint8))


def test_between_key_frames_objects_move_and_keep_their_scores(bundle: Path) -> None:
    model = load(bundle, detect_every=3)
    first, second, third = steps(model, [255, 0, 0])
    moved = load(bundle)
    moved.step(picture(255))
    np.testing.assert_array_equal(second.boxes_px, moved.step(picture(0)).boxes_px)  # black: nothing is detected
    np.testing.assert_array_equal(second.scores, first.scores)
    np.testing.assert_allclose(third.boxes_px, second.boxes_px, atol=1e-3)  # no change of brightness, no motion
    assert third.masks.any(axis=(1, 2)).all()


@pytest.mark.parametrize("tracker", ["released", "paper"])
@pytest.mark.parametrize("every", [1, 3])
def test_ages_and_scores_count_missed_detections(bundle: Path, tracker: str, every: int) -> None:
    """Found in frame 0 and never again: as many key frames as without key frames there are frames."""
    model = load(bundle, tracker=tracker, detect_every=every, max_age_shown=2, retire_after=4)
    results = steps(model, [100] + [0] * 6 * every)
    assert [len(result) for result in results] == [3] * 3 * every + [0] * (3 * every + 1)
    assert [result.scores[0] for result in results[:3 * every]] == pytest.approx(
        [SCORE * 0.95 ** (index // every) for index in range(3 * every)])
    # Retired, they are new objects when they return. Frame 6 * every is a key frame; the next one is `every` later.
    returned = steps(model, [100] * every)[-1] if every > 1 else model.step(picture(100))
    assert returned.ids.tolist() == [3, 4, 5]


def test_remembered_just_long_enough(bundle: Path) -> None:
    model = load(bundle, detect_every=3, max_age_shown=2, retire_after=4)
    results = steps(model, [100] + [0] * 14 + [100])  # frames 3, 6, 9 and 12 miss them, frame 15 finds them
    assert results[-1].ids.tolist() == [0, 1, 2]
    results = steps(model, [0] * 17 + [100])  # 18, 21, 24, 27, 30 miss them
    assert results[-1].ids.tolist() == [3, 4, 5]


def test_a_key_frame_finds_them_again(bundle: Path) -> None:
    results = steps(load(bundle, detect_every=2), [0, 100, 100, 0, 0, 0, 100])
    assert [len(result) for result in results] == [0, 0, 3, 3, 3, 3, 3]
    assert results[-1].ids.tolist() == [0, 1, 2] and results[-1].origins == ["detected"] * 3
    assert results[-1].scores[0] == pytest.approx(SCORE)


def test_the_first_frame_is_a_key_frame_also_after_reset(bundle: Path) -> None:
    model = load(bundle, detect_every=5)
    for _ in range(2):
        assert [result.origins[0] for result in steps(model, [100, 100])] == ["detected", "propagated"]
        model.reset()


def test_a_picture_that_is_none_does_not_count(bundle: Path) -> None:
    model = load(bundle, detect_every=2)
    model.step(picture(100))
    with pytest.raises(InputError):
        model.step(np.zeros((2, 2), np.uint8))
    assert [result.origins[0] for result in steps(model, [100, 100])] == ["propagated", "detected"]


def test_the_frame_tracker_moves_nothing(bundle: Path) -> None:
    """Also where the graph for it was opened."""
    opened = open_bundle(bundle)
    assert opened.temporal is not None
    for tracker, count in (("frame", 0), ("released", 2)):
        graph = WatchedGraph(opened.temporal)
        steps(Model(dataclasses.replace(opened, temporal=graph), RunOptions(tracker=tracker)), [100, 110, 120])
        assert len(graph.asked) == count


@pytest.mark.parametrize(("options", "has_temporal", "told"), [
    ({"tracker": "frame"}, True, "the frame tracker cannot do"), ({}, False, "no temporal graph, cannot do")])
def test_key_frames_need_propagation(make_bundle: Any, options: dict[str, Any], has_temporal: bool, told: str) -> None:
    with pytest.raises(InputError, match=told):
        load(make_bundle(has_temporal=has_temporal), detect_every=2, **options)
    load(make_bundle("every", has_temporal=has_temporal), detect_every=1, **options)
