"""Objects pasted from one picture onto another: what is seen, what is hidden, and which pairs it is done to."""
from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny_training import CONFIG, SIZE, Thing, read_clips, same, write_clips

from stmask_deploy.datasets.annotations import Track, read_annotations
from stmask_deploy.training.copy_paste import SeenFrame, SeenObject, paste
from stmask_deploy.training.pairs import PairDataset
from stmask_deploy.training.targets import FrameTargets

RED, BLUE, GREEN = (0, 0, 230), (230, 0, 0), (0, 230, 0)
# Two videos: a large red box in the one, a blue and a green disc in the other that lie on it.
CLIPS = [[Thing("box", (31.5, 47.5), (0, 0), 50, RED)],
         [Thing("disc", (28, 40), (0, 2), 16, BLUE), Thing("disc", (44, 62), (0, -2), 12, GREEN)]]


def seen(number: int, level: int, *coverages: list[list[int]]) -> SeenFrame:
    """A gray picture whose tracks count from `number` on."""
    objects = tuple(SeenObject(Track(number + row, 1, 1, False, ()), np.array(coverage, np.uint8))
                    for row, coverage in enumerate(coverages))
    return SeenFrame(np.full((*objects[0].coverage.shape, 3), level, np.uint8), objects)


def coverages(frame: SeenFrame) -> dict[int, list[list[int]]]:
    return {one.track.id: one.coverage.tolist() for one in frame.objects}


def test_pasted_by_hand() -> None:
    onto = seen(1, 100, [[255, 255, 0, 0]], [[0, 0, 255, 255]])
    source = seen(11, 200, [[0, 255, 51, 0]], [[255, 0, 0, 0]])
    pasted = paste(onto, source, {11})
    assert pasted.picture[..., 0].tolist() == [[100, 200, 120, 100]]
    assert (pasted.picture == pasted.picture[..., :1]).all()
    assert coverages(pasted) == {1: [[255, 0, 0, 0]], 2: [[0, 0, 204, 255]], 11: [[0, 255, 51, 0]]}
    assert pasted.picture.dtype == np.uint8 and all(one.coverage.dtype == np.uint8 for one in pasted.objects)


def test_objects_that_touch_hide_no_more_than_all() -> None:
    onto = seen(1, 0, [[255, 255, 255]])
    source = seen(11, 240, [[255, 153, 0]], [[0, 153, 255]])
    pasted = paste(onto, source, {11, 12})
    assert pasted.picture[..., 2].tolist() == [[240, 240, 240]]
    assert coverages(pasted) == {1: [[0, 0, 0]], 11: [[255, 153, 0]], 12: [[0, 153, 255]]}


@pytest.mark.parametrize("track_ids", [set(), {1, 99}])
def test_nothing_to_paste(track_ids: set[int]) -> None:
    onto = seen(1, 100, [[255, 255]])
    assert paste(onto, seen(11, 200, [[255, 255]]), track_ids) is onto


def open_clips(folder: Path, share: float, clips: list[list[Thing]] = CLIPS, frames: int = 4, **options: Any
               ) -> PairDataset:
    annotations, pictures = read_clips(folder, clips, frames=frames)
    return PairDataset(annotations, pictures, CONFIG, 300, copy_paste=share, **options)


def both(folder: Path, clips: list[list[Thing]] = CLIPS, frames: int = 4, **options: Any
         ) -> tuple[PairDataset, PairDataset]:
    """The same pairs without and with objects pasted onto them."""
    return (open_clips(folder / "plain", 0.0, clips, frames, **options),
            open_clips(folder / "pasted", 1.0, clips, frames, **options))


def tracks(targets: FrameTargets) -> set[int]:
    return set(targets.track_ids.tolist())


def near(picture: torch.Tensor, color: tuple[int, int, int]) -> NDArray[np.bool_]:
    """(H, W) pixels of about a colour."""
    return np.asarray((picture[0].int() - torch.tensor(color)).abs().amax(dim=-1) < 30, np.bool_)


@pytest.mark.usefixtures("unaugmented")
def test_pictures_and_targets_agree(tmp_path: Path) -> None:
    colors = {1: RED, 2: BLUE, 3: GREEN}
    plain, pasted = both(tmp_path)
    mixtures: Counter[tuple[int, ...]] = Counter()  # of pairs whose first frame changes
    hidden = 0
    for index in range(60):
        pair = pasted[index]
        for picture, targets in ((pair.first, pair.first_targets[0]), (pair.second, pair.second_targets[0])):
            shown = {track for track, color in colors.items() if near(picture, color).any()}
            assert shown == tracks(targets) and len(targets) == len(shown)
            for track, box, mask in zip(targets.track_ids.tolist(), targets.boxes.numpy(), targets.masks.numpy(),
                                        strict=True):
                pixels = near(picture, colors[track])
                rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
                np.testing.assert_allclose(box * np.array([SIZE[1], SIZE[0]] * 2),
                                           (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1), atol=1.01)
                shares = pixels.astype(np.float32).reshape(SIZE[0] // 4, 4, SIZE[1] // 4, 4).mean(axis=(1, 3))
                np.testing.assert_allclose(mask, shares, atol=0.02)
        before, after = plain[index], pair
        if not torch.equal(before.first, after.first):
            mixtures[tuple(sorted(tracks(after.first_targets[0])))] += 1
            hidden += bool(tracks(before.first_targets[0]) - tracks(after.first_targets[0]))
    # Discs before the box, one or both; and the box before discs, which it hides altogether.
    assert {(1, 2), (1, 3), (1, 2, 3), (1,)} == set(mixtures) and hidden == mixtures[1,]


@pytest.mark.usefixtures("unaugmented")
def test_nothing_is_pasted_unasked(tmp_path: Path) -> None:
    dataset = open_clips(tmp_path, 0.0)
    for index in range(100):
        pair = dataset[index]
        for targets in (pair.first_targets[0], pair.second_targets[0]):
            assert tracks(targets) in ({1}, {2, 3})


@pytest.mark.usefixtures("unaugmented")
def test_how_many_pairs(tmp_path: Path) -> None:
    # Frames that stand by themselves, so that a partner as near is always found.
    plain, changed = open_clips(tmp_path / "a", 0.0, frames=1), open_clips(tmp_path / "b", 0.4, frames=1)
    differing = sum(not torch.equal(plain[index].first, changed[index].first) for index in range(300))
    # Half of the draws meet the same video again. Of the others the box chooses itself by even chance, the discs choose
    # at least one of them in three cases of four.
    expected = 0.4 * 0.5 * (0.5 + 0.75) / 2 * 300
    assert differing == pytest.approx(expected, abs=3 * expected**0.5)


@pytest.mark.usefixtures("unaugmented")
def test_pasted_objects_move_over_as_many_frames(tmp_path: Path) -> None:
    # A disc whose place tells the frame, on clips long enough for partners at all distances.
    moving = Thing("disc", (32, 8), (0, 9), 8, BLUE)
    plain, pasted = both(tmp_path, [CLIPS[0], [moving]], frames=9, max_gap=6)
    gaps = Counter()
    for index in range(120):
        pair = pasted[index]
        if tracks(plain[index].first_targets[0]) == {1} and near(pair.first, BLUE).any():
            at = [float(np.flatnonzero(near(one, BLUE).any(axis=0)).mean()) for one in (pair.first, pair.second)]
            assert abs(at[1] - at[0]) / 9 == pytest.approx(int(pair.gaps), abs=0.15)
            gaps[int(pair.gaps)] += 1
    assert len(gaps) >= 4


@pytest.mark.usefixtures("unaugmented")
def test_an_object_seen_in_one_frame_alone(tmp_path: Path) -> None:
    appearing = Thing("disc", (28, 40), (0, 0), 16, BLUE, frames=(0,))
    plain, pasted = both(tmp_path, [CLIPS[0], [appearing, CLIPS[1][1]]], frames=2)
    seen_once = 0
    for index in range(60):
        pair = pasted[index]
        for picture, targets in ((pair.first, pair.first_targets[0]), (pair.second, pair.second_targets[0])):
            assert (2 in tracks(targets)) == near(picture, BLUE).any()
        if tracks(plain[index].first_targets[0]) == {1}:
            seen_once += (2 in tracks(pair.first_targets[0])) != (2 in tracks(pair.second_targets[0]))
    assert seen_once


@pytest.mark.usefixtures("unaugmented")
def test_videos_of_two_sizes(tmp_path: Path) -> None:
    large = write_clips(tmp_path / "large", [[Thing("disc", (60, 90), (0, 0), 40, BLUE)]], size=(128, 192))
    small = write_clips(tmp_path / "small", CLIPS[:1])
    values, others = json.loads(small.read_text()), json.loads(large.read_text())
    for video in others["videos"]:
        video["id"] = 2
        video["file_names"] = [f"../../large/JPEGImages/{name}" for name in video["file_names"]]
    for annotation in others["annotations"]:
        annotation |= {"id": 2, "video_id": 2}
    values["videos"] += others["videos"]
    values["annotations"] += others["annotations"]
    small.write_text(json.dumps(values))
    dataset = PairDataset(read_annotations(small), small.parent / "JPEGImages", CONFIG, 60, copy_paste=1.0)
    mixed = [dataset[index] for index in range(60) if len(dataset[index].first_targets[0]) == 2]
    assert mixed
    for pair in mixed:
        blue = near(pair.first, BLUE)
        rows, columns = np.flatnonzero(blue.any(axis=1)), np.flatnonzero(blue.any(axis=0))
        assert (rows.mean(), columns.mean()) == pytest.approx((30, 45), abs=1)  # half of where it lies at its own size


@pytest.mark.parametrize("augment", [False, True])
def test_a_pair_is_a_function_of_its_index(tmp_path: Path, augment: bool, request: pytest.FixtureRequest) -> None:
    if not augment:
        request.getfixturevalue("unaugmented")
    one, other = (open_clips(tmp_path / name, 0.7, seed=2) for name in ("a", "b"))
    forwards = [one[index] for index in range(20)]  # more than two epochs
    for index in reversed(range(20)):
        assert same(forwards[index], other[index])


@pytest.mark.usefixtures("unaugmented")
def test_one_video_has_nothing_to_paste(tmp_path: Path) -> None:
    dataset = open_clips(tmp_path, 1.0, CLIPS[:1])
    assert all(tracks(dataset[index].first_targets[0]) == {1} for index in range(20))


@pytest.mark.usefixtures("unaugmented")
def test_crowds_are_not_pasted(tmp_path: Path) -> None:
    crowd = Thing("disc", (28, 40), (0, 0), 16, BLUE, is_crowd=True)
    plain, pasted = both(tmp_path, [CLIPS[0], [crowd, CLIPS[1][1]]], frames=1)
    greens = hidden = 0
    for index in range(60):
        base, picture = tracks(plain[index].first_targets[0]), pasted[index].first
        if base == {1}:
            assert not near(picture, BLUE).any()
            greens += near(picture, GREEN).any()
        else:  # a crowd under the box is seen no more, and asks for nothing
            assert len(pasted[index].first_targets[0].ignored) == near(picture, BLUE).any()
            hidden += not near(picture, BLUE).any()
    assert greens and hidden
