"""The Python API, on graphs whose answers are known."""
from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_bundles import BOXES, ROWS, SCORES, picture, save_pictures

import stmask_deploy
from stmask_deploy.errors import InputError, StmaskError
from stmask_deploy.runtime.backends import BACKENDS
from stmask_deploy.runtime.model import Model, load
from stmask_deploy.runtime.timing import STAGES, StageTimer

MakeBundle = Callable[..., Path]
SCALE = np.array([128, 80 * 64 / 40] * 2)  # fractions of the 64x64 padded frame -> pixels of an 80x128 picture


def expected_boxes(brightness: int) -> np.ndarray[Any, Any]:
    """(3, 4) pixels of what the tiny frame graph finds."""
    boxes = BOXES[:3] + 0.2 * brightness / 255 * np.array([1, 0, 1, 0])
    return np.clip(boxes * SCALE, 0, [128, 80, 128, 80])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_frame(bundle: Path, backend: str) -> None:
    model = stmask_deploy.load(bundle, backend=backend, device="cpu", threads=1)
    result = model.step(picture(51), time_s=2.5)
    assert (result.index, result.time_s, len(result)) == (0, 2.5, 3)
    assert np.allclose(result.boxes_px, expected_boxes(51), atol=1e-3)
    assert np.allclose(result.scores, SCORES[:3].max(axis=1) * 0.95)
    assert result.labels == ["cat", "dog", "cat"] and result.origins == ["detected"] * 3
    assert result.masks.shape == (3, 80, 128)
    assert result.masks[0, 15, 20] and not result.masks[0, 60, 100]


@pytest.mark.parametrize("backend", BACKENDS)
def test_objects_without_detections_are_propagated(bundle: Path, backend: str) -> None:
    model = load(bundle, backend=backend)
    first = model.step(picture(255))
    second = model.step(picture(0))  # black: the frame graph finds nothing
    assert second.origins == ["propagated"] * 3 and second.ages.tolist() == [1] * 3
    assert second.ids.tolist() == first.ids.tolist() == [0, 1, 2]
    assert np.allclose(second.scores, first.scores * 0.95)
    # All four deltas are twice the change of brightness, -2: the centre moves by 0.1 * -2 of the size, which becomes
    # exp(0.2 * -2) of what it was.
    x1, _, x2, _ = BOXES[0] + 0.2 * np.array([1, 0, 1, 0])
    center, width = (x1 + x2) / 2 - 0.2 * (x2 - x1), (x2 - x1) * np.exp(-0.4)
    assert np.allclose(second.boxes_px[0, [0, 2]], np.array([center - width / 2, center + width / 2]) * 128, atol=1e-3)


def test_the_temporal_graph_reads_the_previous_frame_not_an_older_one(bundle: Path) -> None:
    model = load(bundle)
    for brightness in (255, 0):
        result = model.step(picture(brightness))
    unchanged = model.step(picture(0))
    assert np.allclose(unchanged.boxes_px, result.boxes_px, atol=1e-3)


def test_identities_last_and_reset_forgets_them(bundle: Path) -> None:
    model = load(bundle)
    for brightness in (100, 110, 0, 120):
        result = model.step(picture(brightness))
    assert result.ids.tolist() == [0, 1, 2] and result.origins == ["detected"] * 3
    assert result.index == 3 and result.time_s == pytest.approx(0.1)
    model.reset()
    again = model.step(picture(0))
    assert (len(again), again.index) == (0, 0)


@pytest.mark.parametrize("options", [{"tracker": "frame"}, {"tracker": "paper"}, {"nms": "per-class"}])
def test_other_trackers_and_suppression(bundle: Path, options: dict[str, str]) -> None:
    model = load(bundle, **options)
    first = model.step(picture(100))
    # Per-class suppression may take a second class of the same anchor: 0.1, 0.2 * 0.95 are above 0.05.
    assert first.ids.tolist() == list(range(5 if "nms" in options else 3))
    second = model.step(picture(0))
    assert len(second) == (0 if options.get("tracker") == "frame" else len(first))
    assert model.step(picture(100)).ids.tolist()[:3] == [0, 1, 2]


def test_the_frame_tracker_needs_no_temporal_graph(make_bundle: MakeBundle) -> None:
    folder = make_bundle(has_temporal=False)
    model = load(folder)
    assert model.options.tracking.tracker == "frame"
    assert [len(model.step(picture(brightness))) for brightness in (100, 0, 100)] == [3, 0, 3]
    with pytest.raises(InputError, match="needs a temporal graph"):
        load(folder, tracker="released")


def test_a_higher_threshold_leaves_out_candidates(bundle: Path) -> None:
    assert len(load(bundle, score_threshold=0.75).step(picture(100))) == 2


def test_rows_beyond_the_candidates_are_padding(make_bundle: MakeBundle) -> None:
    assert len(load(make_bundle(count=1)).step(picture(100))) == 1


def test_lost_candidates_are_counted_where_they_matter(make_bundle: MakeBundle) -> None:
    folder = make_bundle(count=ROWS + 5)
    model = load(folder)
    for brightness in (100, 0, 100):
        model.step(picture(brightness))
    assert model.lost_candidates == 10
    model.reset()
    assert model.lost_candidates == 0
    # Six rows by falling score are all that a cap of six would read.
    model = load(folder, top_k=ROWS)
    model.step(picture(100))
    assert model.lost_candidates == 0
    # With four of the six below the host's own threshold, some of the lost ones could have filled the cap.
    model = load(folder, top_k=ROWS, score_threshold=0.75)
    model.step(picture(100))
    assert model.lost_candidates == 5
    # Rows with a score below the threshold yield nothing in any class: the worst of the six has 0.4 * 0.95.
    for threshold, lost in ((0.37, 5), (0.39, 0)):
        model = load(folder, nms="per-class", score_threshold=threshold)
        model.step(picture(100))
        assert model.lost_candidates == lost


def test_equal_scores_keep_the_anchors_order(make_bundle: MakeBundle) -> None:
    boxes = BOXES.copy()
    boxes[1] = boxes[0] + 0.01  # overlaps the first, with the same score: the lower anchor index wins
    scores = np.repeat(SCORES[:1], ROWS, axis=0)
    winners = []
    for anchors in ([7, 3, 9, 0, 0, 0], [3, 7, 9, 0, 0, 0]):
        folder = make_bundle(f"{anchors[0]}", constants={"base_boxes": boxes, "class_scores_": scores,
                                                         "anchor_index_": np.array(anchors)})
        winners.append(load(folder).step(picture(51)).boxes_px[0])
    assert np.allclose(winners[0] - winners[1], 0.01 * SCALE, atol=1e-3)


def test_values_that_are_not_numbers_are_an_error(make_bundle: MakeBundle) -> None:
    boxes = BOXES.copy()
    boxes[4, 2] = np.nan
    assert len(load(make_bundle("padding", constants={"base_boxes": boxes})).step(picture(100))) == 3
    boxes[1, 2] = np.nan
    with pytest.raises(StmaskError, match="not numbers"):
        load(make_bundle("candidate", constants={"base_boxes": boxes})).step(picture(100))


def test_scores_that_are_not_numbers_are_an_error_although_they_pass_no_threshold(make_bundle: MakeBundle) -> None:
    scores = SCORES.copy()
    scores[4] = np.nan
    with pytest.raises(StmaskError, match="not numbers"):
        load(make_bundle("scores", constants={"class_scores_": scores})).step(picture(100))


def test_a_source_is_tracked_from_a_clean_state(bundle: Path, tmp_path: Path) -> None:
    folder = save_pictures(tmp_path / "clip", [0, 100, 0, 120])
    model = load(bundle)
    model.step(picture(100))
    for _ in range(2):
        results = list(model.track(folder, image_fps=10))
        assert [result.index for result in results] == [0, 1, 2, 3]
        assert [result.time_s for result in results] == pytest.approx([0, 0.1, 0.2, 0.3])
        assert [result.ids.tolist() for result in results] == [[], [0, 1, 2], [0, 1, 2], [0, 1, 2]]
        assert [result.origins[0] for result in results[1:]] == ["detected", "propagated", "detected"]
    assert len(list(model.track(folder, max_frames=2))) == 2


def test_a_source_is_closed_also_when_nobody_reads_on(bundle: Path, tmp_path: Path,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    from stmask_deploy.runtime.image_source import ImageSource

    closed: list[str] = []
    monkeypatch.setattr(ImageSource, "close", lambda self: closed.append(self.name))
    results = load(bundle).track(save_pictures(tmp_path / "clip", [100, 100]))
    next(results)
    results.close()
    assert closed == ["clip"]


def test_a_video_that_nobody_reads_on_may_go_on_in_steps(bundle: Path, tmp_path: Path) -> None:
    """In mode latency: nothing was tracked that was not seen."""
    folder = save_pictures(tmp_path / "clip", [100] * 5)
    (folder / "1.png").write_bytes(b"not a picture")
    model = load(bundle)
    results = model.track(folder, mode="latency")
    assert [next(results).index for _ in range(2)] == [0, 2]
    results.close()
    result = model.step(picture(0))
    assert (result.index, result.ids.tolist(), result.origins) == (3, [0, 1, 2], ["propagated"] * 3)


def test_sources_and_pictures_that_are_none(bundle: Path, tmp_path: Path) -> None:
    model = load(bundle)
    with pytest.raises(InputError, match="does not exist"):
        next(model.track(tmp_path / "nothing.mp4"))
    with pytest.raises(InputError, match="uint8"):
        model.step(np.zeros((4, 4, 3), np.float32))  # type: ignore[arg-type]
    for time_s in (float("nan"), float("inf"), "soon", 10 ** 400):
        with pytest.raises(InputError, match=f"time_s is {repr(time_s)[:70]}.*; give seconds"):
            model.step(picture(100), time_s)
    assert model.step(picture(100)).index == 0


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (333, 7)])
def test_any_size_of_picture(bundle: Path, size: tuple[int, int]) -> None:
    result = load(bundle).step(picture(100, size))
    assert result.masks.shape == (len(result), *size)


def test_memory_is_bounded_for_live_sources_only(bundle: Path) -> None:
    model = load(bundle)
    assert model.options.memory == "exact"
    model.reset(is_live=True)
    assert model.options.memory == "bounded"
    model = load(bundle, memory="bounded", retire_after=12)
    model.step(picture(100))
    for _ in range(13):
        model.step(picture(0))
    assert model.step(picture(100)).ids.tolist() == [3, 4, 5]


def test_forks_share_the_graphs_and_nothing_else(bundle: Path, tmp_path: Path) -> None:
    clips = [save_pictures(tmp_path / str(row), brightnesses) for row, brightnesses in enumerate(
        ([100, 110, 0, 120, 90] * 3, [0, 200, 0, 0, 50] * 3, [255] * 9, [0, 0, 10, 20, 30, 0] * 2))]

    def answers(model: Model, clip: Path) -> list[list[Any]]:
        return [[result.index, result.ids.tolist(), result.scores.tolist(), result.boxes_px.tolist()]
                for result in model.track(clip)]

    alone = [answers(load(bundle, score_decay=0.5), clip) for clip in clips]
    model = load(bundle, score_decay=0.5)
    model.step(picture(100))
    forks = [model.fork() for _ in clips]
    assert all(fork._bundle is model._bundle and fork.options == model.options for fork in forks)
    with ThreadPoolExecutor(len(clips)) as pool:
        assert list(pool.map(answers, forks, clips)) == alone
    assert model.step(picture(100)).ids.tolist() == [0, 1, 2] and model.step(picture(100)).index == 2


@pytest.mark.parametrize("time_s", [Fraction(1, 4), np.float32(0.25), Decimal("0.25"), np.float64(0.25)])
def test_a_time_may_be_any_number(bundle: Path, time_s: Any) -> None:
    result = load(bundle).step(picture(100), time_s)
    assert type(result.time_s) is float and result.time_s == 0.25 and "0.25" in repr(result)


def test_stages_are_timed(bundle: Path, tmp_path: Path) -> None:
    timer = StageTimer()
    list(load(bundle, timer=timer).track(save_pictures(tmp_path / "clip", [100, 100])))
    assert len(timer.frames) == 2
    expected = {"decode", "preprocess", "frame_graph", "nms", "instance_graph", "prototype_graph", "tracker", "masks"}
    assert set(timer.frames[0]) == expected
    assert set(timer.frames[1]) == expected | {"temporal_graph"}
    assert expected < set(STAGES)


def test_stages_of_single_steps_are_timed(bundle: Path) -> None:
    timer = StageTimer()
    model = load(bundle, timer=timer)
    for brightness in (100, 0):
        model.step(picture(brightness))
    assert ["temporal_graph" in frame for frame in timer.frames] == [False, True]
    assert all({"preprocess", "frame_graph", "tracker"} < set(frame) for frame in timer.frames)


def test_the_cache_may_be_named_by_a_string(bundle: Path, tmp_path: Path) -> None:
    load(bundle, "openvino", device="cpu", cache=str(tmp_path / "cache"))
    assert any((tmp_path / "cache").iterdir())


def test_unknown_options_are_refused(bundle: Path) -> None:
    with pytest.raises(InputError, match="option iou is not known; known: score_threshold, "):
        load(bundle, iou=0.5)
    with pytest.raises(InputError, match="--candidate-threshold"):
        load(bundle, score_threshold=0.01)


@pytest.mark.parametrize("mode", ["latency", "throughput"])
def test_damage_is_told(bundle: Path, tmp_path: Path, mode: str) -> None:
    folder = save_pictures(tmp_path / "pictures", [0, 0, 0, 0])
    (folder / "1.png").write_bytes(b"garbage")
    (folder / "3.png").write_bytes(b"garbage")
    model = load(bundle)
    assert not model.damage.is_damaged
    frames = model.track(folder, mode=mode)
    next(frames)
    assert model.damage.unreadable_files == 0
    assert len(list(frames)) == 1 and model.damage.unreadable_files == 2
    model.reset()
    assert not model.damage.is_damaged


@pytest.mark.parametrize(("arguments", "told"), [
    ({"bundle": 5}, "bundle must be the path of a folder, got 5"), ({"bundle": ""}, "bundle must be the path of a "),
    ({"bundle": b"x"}, "bundle must be the path of a folder, got b'x'"), ({"cache": 5}, "cache must be the path of "),
    ({"timer": 3}, "timer must be a StageTimer, got 3"),
    ({"nms": np.zeros(2)}, r"nms array\(\[0., 0.\]\) is not known; known: cross-class, per-class"),
    ({"tracker": 3}, "tracker 3 is not known"), ({"score_threshold": 10 ** 5000}, "in 0..1, got a very long int"),
    ({"threads": 10 ** 5000}, "threads must be a whole number .* got a very long int"),
])
def test_arguments_that_cannot_be(bundle: Path, arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        load(**{"bundle": bundle, **arguments})


@pytest.mark.parametrize("mode", ["latency", "throughput"])
def test_a_video_that_was_left_changes_nothing_of_the_next(bundle: Path, tmp_path: Path, mode: str) -> None:
    model = load(bundle)
    left = model.track(save_pictures(tmp_path / "clip", [100] * 12), mode=mode)
    next(left)
    model.reset()
    results = [model.step(picture(100)), model.step(picture(110))]
    left.close()
    results.append(model.step(picture(120)))
    assert [result.index for result in results] == [0, 1, 2]
    np.testing.assert_array_equal(results[2].ids, results[0].ids)


@pytest.mark.parametrize("threads", [0, -1, 2.5, "2", True, 13, 10 ** 10])
def test_threads_that_cannot_be(bundle: Path, monkeypatch: pytest.MonkeyPatch, threads: Any) -> None:
    monkeypatch.setattr("stmask_deploy.runtime.backends.available_cpus", lambda: 3)
    load(bundle, threads=12)
    with pytest.raises(InputError, match=r"threads must be a whole number from 1 to 12 \(4 for each CPU that thi"):
        load(bundle, threads=threads)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_working_directory_may_change(bundle: Path, backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                          ) -> None:
    monkeypatch.chdir(bundle.parent)
    model = load(bundle.name, backend=backend, device="cpu", detect_every=2)
    monkeypatch.chdir(tmp_path)
    assert len(model.step(picture(51))) == len(model.step(picture(51))) == 3  # other outputs between key frames


def test_a_negative_number_of_candidates_is_told(make_bundle: MakeBundle) -> None:
    model = load(make_bundle(count=-2))
    with pytest.raises(StmaskError, match="the frame graph gave a negative number of candidates"):
        model.step(picture(200))
