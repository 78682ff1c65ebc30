"""Splits: measured properties that make them what they are called."""
from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from stmask_deploy.synthetic.clips import Clip, render
from stmask_deploy.synthetic.outlines import CLASSES
from stmask_deploy.synthetic.splits import SPLITS
from stmask_deploy.synthetic.things import label_map

SMALL = (54, 96)
NUM_CLIPS = 10


@cache
def clips(split: str) -> tuple[Clip, ...]:
    return tuple(render(split, index, size=SMALL) for index in range(NUM_CLIPS))


def covered(clip: Clip) -> np.ndarray:
    """(T, n) share of each object's pixels in the picture that something covers; NaN where it is out of the picture."""
    numbers = [number for number, thing in enumerate(clip.scene.things) if thing.class_id]
    shares = []
    for time in range(clip.num_frames):
        labels = clip.scene.labels(time)
        alone = [label_map([clip.scene.things[number]], clip.scene.camera, time, *SMALL) for number in numbers]
        whole = np.array([mask.sum() for mask in alone], float)
        whole[whole < 30] = np.nan
        shares.append(1 - np.array([(labels == number + 1).sum() for number in numbers]) / whole)
    return np.array(shares)


@cache
def covered_shares(split: str) -> tuple[np.ndarray, ...]:
    return tuple(covered(clip) for clip in clips(split))


def mean_covered(split: str) -> float:
    return float(np.mean([np.nanmean(shares) for shares in covered_shares(split)]))


def test_hard_has_more_occlusion_than_val_and_val_some() -> None:
    assert mean_covered("hard") > 1.5 * mean_covered("val") > 0.03


def test_in_hard_objects_vanish_behind_others_and_come_back() -> None:
    vanished = 0
    for shares in covered_shares("hard"):
        hidden = shares > 0.97
        for column in hidden.T:
            text = "".join("x" if value else "." for value in column)
            vanished += sum(2 <= len(run) <= 8 for run in text.strip("x").split(".") if run)
    assert vanished >= 3


def test_hard_has_bursts_of_blur_and_val_only_light_blur() -> None:
    shutters = {split: np.concatenate([clip.scene.sensor.shutters for clip in clips(split)]) for split in SPLITS}
    assert shutters["val"].max() <= 0.5
    assert (shutters["val"] == 0).mean() > 0.5
    assert 0.3 < (shutters["hard"] > 0.3).mean() < 0.95
    assert all(clip.scene.sensor.shutters.max() > 0.6 for clip in clips("hard"))


def test_hard_flickers_and_is_dull() -> None:
    def of(split: str, value: str) -> list[float]:
        sensors = [clip.scene.sensor for clip in clips(split)]
        return [float(np.abs(np.diff(sensor.gains, axis=0)).mean()) if value == "flicker" else sensor.contrast
                for sensor in sensors]

    assert np.mean(of("hard", "flicker")) > 2 * np.mean(of("val", "flicker"))
    assert np.mean(of("hard", "contrast")) < np.mean(of("val", "contrast")) - 0.1
    assert min(of("hard", "contrast")) >= 0.35, "a person must be able to follow"


def test_train_has_both_kinds() -> None:
    clips = [render("train", index, size=(32, 57)) for index in range(30)]
    long = [float(clip.scene.sensor.shutters.max()) > 0.6 for clip in clips]
    pillars = [clip.scene.things[-1].path.size > 1 for clip in clips]
    assert 0.1 < np.mean(pillars) < 0.4
    assert 0.3 < np.mean(long) < 0.9


def test_classes_are_balanced() -> None:
    counts = np.zeros(len(CLASSES))
    for split in SPLITS:
        for index in range(16):
            np.add.at(counts, render(split, index, 6, (32, 57)).class_ids - 1, 1)
    assert counts.min() > 0.5 * counts.mean()
    assert counts.max() < 1.5 * counts.mean()


def test_look_alikes_are_common_in_hard() -> None:
    def twins(split: str) -> float:
        sprites = [[id(thing.sprite) for thing in clip.scene.things if thing.class_id] for clip in clips(split)]
        return float(np.mean([len(set(ids)) < len(ids) for ids in sprites]))

    assert twins("hard") >= 0.6 > twins("val")


@pytest.mark.parametrize(("split", "limit"), [("val", 0.033), ("hard", 0.045), ("train", 0.045)])
def test_no_object_outruns_its_split(split: str, limit: float) -> None:
    """The limits are shares of the width, without the jolts of the camera."""
    for clip in clips(split):
        for thing in clip.scene.things:
            if thing.class_id:
                assert thing.path.fastest(clip.num_frames) * SMALL[0] / SMALL[1] < limit


def test_objects_move_in_all_directions() -> None:
    ways = np.array([thing.path.position(clip.num_frames - 1) - thing.path.position(0)
                     for clip in clips("val") for thing in clip.scene.things if thing.class_id])
    assert np.all((ways > 0.1).sum(axis=0) > 3)
    assert np.all((ways < -0.1).sum(axis=0) > 3)


def test_no_object_is_tiny() -> None:
    for split in SPLITS:
        for clip in clips(split):
            for thing in clip.scene.things:
                sizes = [thing.path.size_at(time) for time in range(clip.num_frames)]
                assert min(sizes) >= 0.12 or not thing.class_id


def test_objects_enter_and_leave() -> None:
    entered = left = 0
    for clip in clips("val"):
        seen = np.array([clip.masks(time).any(axis=(1, 2)) for time in range(clip.num_frames)])
        entered += int((~seen[0] & seen[-1]).sum())
        left += int((seen[0] & ~seen[-1]).sum())
    assert entered >= 3
    assert left >= 3


def test_seeds_and_names_are_unique() -> None:
    assert len({split.seed for split in SPLITS.values()}) == len(SPLITS) == 4
    assert all(name == split.name for name, split in SPLITS.items())
