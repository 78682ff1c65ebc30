from __future__ import annotations

import numpy as np
import pytest

from stmask_deploy.scenes import render_clip


def clip(num_frames: int = 3, size: tuple[int, int] = (90, 160), seed: int = 0, num_objects: int = 5) -> np.ndarray:
    return np.stack(list(render_clip(num_frames, size, seed, num_objects)))


def test_the_same_arguments_give_the_same_pixels() -> None:
    assert np.array_equal(clip(), clip())


def test_a_longer_clip_begins_with_a_shorter_one() -> None:
    assert np.array_equal(clip(6)[:3], clip(3))


def test_another_seed_is_another_clip() -> None:
    assert np.abs(clip(1).astype(int) - clip(1, seed=1)).mean() > 10


def test_things_are_there_and_move() -> None:
    frames, empty = clip(31), clip(31, num_objects=0)
    assert (np.abs(frames[0].astype(int) - empty[0]).max(axis=2) > 30).mean() > 0.05
    moved = np.abs(frames[30].astype(int) - frames[0]).max(axis=2) > 30
    assert moved.mean() > 0.05


def test_frames_follow_each_other_closely() -> None:
    frames = clip(10, size=(180, 320)).astype(int)
    steps = [np.abs(after - before).mean() for before, after in zip(frames, frames[1:], strict=False)]
    assert 0.5 < min(steps) and max(steps) < 12


def test_the_view_has_texture() -> None:
    frame = clip(1, size=(180, 320), num_objects=0)[0].astype(float)
    assert frame.std(axis=(0, 1)).min() > 10
    assert np.abs(np.diff(frame, axis=1)).mean() > 1


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (33, 21), (20, 300), (300, 20)])
def test_any_size(size: tuple[int, int]) -> None:
    frames = clip(2, size)
    assert (frames.shape, frames.dtype) == ((2, *size, 3), np.uint8)


def test_no_frames() -> None:
    assert list(render_clip(0)) == []
