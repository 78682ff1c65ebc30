"""Objects pasted from one picture onto another: what is seen, what is hidden, and which pairs it is done to."""
from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny_training import CONFIG, SIZE, Thing, read_clips

from stmask_deploy.datasets.annotations import Track
from stmask_deploy.training.copy_paste import SeenFrame, SeenObject, paste
from stmask_deploy.training.pairs import PairDataset
from stmask_deploy.training.targets import PairBatch

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


def pairs(folder: Path, share: float, count: int = 60) -> list[PairBatch]:
    annotations, frames = read_clips(folder, CLIPS)
    dataset = PairDataset(annotations, frames, CONFIG, count, augment=False, copy_paste=share)
    return [dataset[index] for index in range(count)]


def near(picture: torch.Tensor, color: tuple[int, int, int]) -> NDArray[np.bool_]:
    """(H, W) pixels of about a colour."""
    return np.asarray((picture[0].int() - torch.tensor(color)).abs().amax(dim=-1) < 30, np.bool_)


def test_pictures_and_targets_agree(tmp_path: Path) -> None:
    colors = {1: RED, 2: BLUE, 3: GREEN}
    mixtures: Counter[tuple[int, ...]] = Counter()
    for pair in pairs(tmp_path, 1.0):
        for picture, targets in ((pair.first, pair.first_targets[0]), (pair.second, pair.second_targets[0])):
            shown = {track for track, color in colors.items() if near(picture, color).any()}
            assert shown == set(targets.track_ids.tolist()) and len(targets) == len(shown)
            for track, box, mask in zip(targets.track_ids.tolist(), targets.boxes.numpy(), targets.masks.numpy(),
                                        strict=True):
                pixels = near(picture, colors[track])
                rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
                np.testing.assert_allclose(box * np.array([SIZE[1], SIZE[0]] * 2),
                                           (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1), atol=1.01)
                shares = pixels.astype(np.float32).reshape(SIZE[0] // 4, 4, SIZE[1] // 4, 4).mean(axis=(1, 3))
                np.testing.assert_allclose(mask, shares, atol=0.02)
        mixtures[tuple(sorted(pair.first_targets[0].track_ids.tolist()))] += 1
        first, second = pair.first_targets[0], pair.second_targets[0]
        assert set(first.track_ids.tolist()) == set(second.track_ids.tolist())
    # The box alone, discs before it, and discs that it hides altogether; the discs by themselves.
    assert {(1,), (1, 2, 3), (2, 3)} <= set(mixtures), mixtures
    assert mixtures[1, 2] or mixtures[1, 3]


@pytest.mark.parametrize("share", [0.0, 0.4])
def test_how_many_pairs(tmp_path: Path, share: float) -> None:
    plain, changed = pairs(tmp_path / "a", 0.0, 200), pairs(tmp_path / "b", share, 200)
    differing = sum(not torch.equal(one.first, other.first) for one, other in zip(plain, changed, strict=True))
    # Half the draws meet the same video again, and a quarter to a half of the others choose no object.
    assert differing == 0 if share == 0 else 0.4 * 0.5 * 0.5 * 0.4 < differing / 200 < 0.4 * 0.5


def test_a_pair_is_a_function_of_its_index(tmp_path: Path) -> None:
    annotations, frames = read_clips(tmp_path, CLIPS)
    one, other = (PairDataset(annotations, frames, CONFIG, 50, seed=2, copy_paste=0.7) for _ in range(2))
    forwards = [one[index] for index in range(8)]
    for index in reversed(range(8)):
        assert torch.equal(forwards[index].first, other[index].first)
        assert torch.equal(forwards[index].second_targets[0].boxes, other[index].second_targets[0].boxes)


def test_one_video_has_nothing_to_paste(tmp_path: Path) -> None:
    annotations, frames = read_clips(tmp_path, CLIPS[:1])
    dataset = PairDataset(annotations, frames, CONFIG, 20, augment=False, copy_paste=1.0)
    assert all(dataset[index].first_targets[0].track_ids.tolist() == [1] for index in range(20))


def test_crowds_are_not_pasted(tmp_path: Path) -> None:
    crowd = Thing("disc", (28, 40), (0, 0), 16, BLUE, is_crowd=True)
    annotations, frames = read_clips(tmp_path, [CLIPS[0], [crowd, CLIPS[1][1]]], frames=1)
    plain, changed = (PairDataset(annotations, frames, CONFIG, 60, augment=False, copy_paste=share)
                      for share in (0.0, 1.0))
    pasted = 0
    for index in range(60):
        if plain[index].first_targets[0].track_ids.tolist() == [1]:
            picture = changed[index].first
            assert not near(picture, BLUE).any()
            pasted += near(picture, GREEN).any()
    assert pasted
