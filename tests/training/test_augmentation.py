"""Views and colours of the frames of a pair."""
from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from stmask_deploy.training import augmentation
from stmask_deploy.training.augmentation import BRIGHTNESS, STRETCH, ZOOM, Colors, PairAugmentation, View

PICTURE_HW, INPUT_HW = (120, 200), (64, 96)


def smooth_picture(size: tuple[int, int], seed: int = 0) -> NDArray[np.uint8]:
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC), np.uint8)


def generator(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize(("picture_hw", "input_hw"), [
    ((120, 200), (64, 96)), ((64, 96), (64, 96)), ((61, 97), (64, 96)), ((33, 50), (90, 160)),
])
@pytest.mark.parametrize(("seed", "is_mirrored"), [(0, False), (1, True)])
def test_the_whole_picture_is_what_resizing_gives(picture_hw: tuple[int, int], input_hw: tuple[int, int],
                                                  seed: int, is_mirrored: bool, monkeypatch: pytest.MonkeyPatch
                                                  ) -> None:
    monkeypatch.setattr(augmentation, "ZOOM", (1.0, 1.0))
    monkeypatch.setattr(augmentation, "STRETCH", 1.0)
    picture = smooth_picture(picture_hw)
    expected = cv2.resize(picture, input_hw[::-1], interpolation=cv2.INTER_LINEAR).astype(int)
    expected = expected[:, ::-1] if is_mirrored else expected
    found = View.draw(generator(seed), picture_hw, input_hw).apply(picture, (0, 0, 0)).astype(int)
    inside = slice(2, -2)  # where the picture is enlarged, its outermost pixels fade into the border
    np.testing.assert_allclose(found[inside, inside], expected[inside, inside], atol=4)  # positions in 1/32 pixel
    if picture_hw[0] >= input_hw[0] and picture_hw[1] >= input_hw[1]:
        np.testing.assert_allclose(found, expected, atol=4)


def test_a_view_in_floating_point() -> None:
    # Every pixel of the input, looked up where the inverse of the matrix says.
    picture = smooth_picture(PICTURE_HW)
    for seed in range(6):
        view = View.draw(generator(seed), PICTURE_HW, INPUT_HW)
        found = view.apply(picture, (7, 7, 7))
        for y, x in ((5, 5), (30, 50), (60, 90), (10, 80)):
            source = (np.array([x, y]) - view.matrix[:, 2]) / np.diag(view.matrix[:, :2])
            if not (1 <= source[0] < PICTURE_HW[1] - 2 and 1 <= source[1] < PICTURE_HW[0] - 2):
                continue
            left, top = np.floor(source).astype(int)
            right, below = source - (left, top)
            cells = picture[top:top + 2, left:left + 2].astype(float)
            expected = ((1 - below) * ((1 - right) * cells[0, 0] + right * cells[0, 1])
                        + below * ((1 - right) * cells[1, 0] + right * cells[1, 1]))
            np.testing.assert_allclose(found[y, x], expected, atol=4)


def test_views_keep_to_their_limits_and_use_them() -> None:
    views = [View.draw(generator(seed), PICTURE_HW, INPUT_HW) for seed in range(300)]
    scales = np.array([np.diag(view.matrix[:, :2]) for view in views])  # (300, 2) x, y
    scale_x, scale_y = (scales * PICTURE_HW[::-1] / INPUT_HW[::-1]).T
    mirrored = scale_x < 0
    zooms, stretches = np.sqrt(np.abs(scale_x) * scale_y), np.abs(scale_x) / scale_y
    assert (zooms >= ZOOM[0] - 1e-9).all() and (zooms <= ZOOM[1] + 1e-9).all()
    assert zooms.min() < ZOOM[0] * 1.05 and zooms.max() > ZOOM[1] / 1.05
    assert (np.maximum(stretches, 1 / stretches) <= STRETCH + 1e-9).all() and stretches.std() > 0.02
    assert (scale_y > 0).all() and 0.4 < mirrored.mean() < 0.6


def test_a_view_shows_a_window_of_the_picture_or_all_of_it() -> None:
    for seed in range(100):
        view = View.draw(generator(seed), PICTURE_HW, INPUT_HW)
        for axis in (0, 1):
            side, length = PICTURE_HW[1 - axis], INPUT_HW[1 - axis]
            edges = np.sort(view.matrix[axis, axis] * np.array([-0.5, side - 0.5]) + view.matrix[axis, 2])
            inside = edges[0] >= -0.5 - 1e-6 and edges[1] <= length - 0.5 + 1e-6
            around = edges[0] <= -0.5 + 1e-6 and edges[1] >= length - 0.5 - 1e-6
            assert inside or around


def test_beyond_the_picture_lies_the_border() -> None:
    away = next(view for view in (View.draw(generator(seed), PICTURE_HW, INPUT_HW) for seed in range(99))
                if min(abs(view.matrix[0, 0]) * PICTURE_HW[1] / INPUT_HW[1],
                       view.matrix[1, 1] * PICTURE_HW[0] / INPUT_HW[0]) < 0.8)
    shown = away.apply(np.full((*PICTURE_HW, 3), 250, np.uint8), (10, 20, 30))
    assert (shown == (10, 20, 30)).all(axis=2).any() and (shown == 250).all(axis=2).any()


def test_colours_without_strength_change_nothing() -> None:
    picture = smooth_picture(PICTURE_HW)
    changed = Colors.draw(generator(0), strength=0).apply(picture).astype(int)
    assert np.abs(changed - picture).max() <= 6  # 8 bits of hue, saturation and value are coarser than BGR
    assert np.abs(changed - picture).mean() < 1.5


@pytest.mark.parametrize(("colors", "before", "after"), [
    (Colors(20, 1, 1, 0), (100, 100, 100), (120, 120, 120)),
    (Colors(0, 2, 1, 0), (100, 140, 150), (72, 152, 172)),  # away from middle grey, 128
    (Colors(0, 1, 0, 0), (0, 0, 200), (200, 200, 200)),  # without saturation only the value is left
    (Colors(0, 1, 1, 60), (0, 0, 200), (0, 200, 0)),  # red, 120 degrees on
    (Colors(0, 1, 1, -60), (0, 0, 200), (200, 0, 0)),  # and back, through zero
    (Colors(32, 1.35, 1.35, 9), (255, 255, 255), (255, 255, 255)),  # no overflow
    (Colors(-32, 1.35, 1, 0), (0, 0, 0), (0, 0, 0)),
])
def test_colours_by_hand(colors: Colors, before: tuple[int, int, int], after: tuple[int, int, int]) -> None:
    picture = np.full((2, 3, 3), before, np.uint8)
    np.testing.assert_allclose(colors.apply(picture)[1, 2].astype(int), after, atol=2)
    assert (picture == before).all()


def test_colours_are_drawn_within_their_limits() -> None:
    drawn = [Colors.draw(generator(seed)) for seed in range(200)]
    assert max(abs(one.brightness) for one in drawn) <= BRIGHTNESS
    for name in ("contrast", "saturation"):
        values = [getattr(one, name) for one in drawn]
        assert 0.7 <= min(values) < 0.75 and 1.25 < max(values) <= 1.35


def test_the_frames_of_a_pair_share_the_view_and_nearly_the_colours() -> None:
    picture = smooth_picture(PICTURE_HW)
    within, looks = [], []
    for seed in range(12):
        frames = []
        for changes in PairAugmentation.draw(generator(seed), PICTURE_HW, INPUT_HW).colors:
            shown = picture
            for change in changes:
                shown = change.apply(shown)
            frames.append(shown.astype(float))
        within.append(np.abs(frames[0] - frames[1]).mean())
        looks.append(frames[0])
    across = [np.abs(one - other).mean() for one, other in zip(looks, looks[1:], strict=False)]
    assert 0 < np.mean(within) < 0.5 * np.mean(across)
