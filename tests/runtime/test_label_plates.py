from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stmask_deploy.runtime.label_plates import PlateStyle, draw_plate, place_plates

FRAME = (640, 360)
corner = st.integers(-20, 700)
anchors = st.lists(st.tuples(corner, corner, corner, corner), max_size=12)


def overlap(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


@given(anchors, st.integers(1, 200), st.integers(1, 40))
def test_plates_stay_in_the_frame_and_keep_their_size(anchors: list[tuple[int, int, int, int]], width: int,
                                                      height: int) -> None:
    places = place_plates(anchors, [(width, height)] * len(anchors), FRAME)
    assert len(places) == len(anchors)
    for x1, y1, x2, y2 in places:
        assert 0 <= x1 < x2 <= FRAME[0] and 0 <= y1 < y2 <= FRAME[1]
        assert (x2 - x1, y2 - y1) == (width, height)


@pytest.mark.parametrize(("anchor", "place"), [
    ((100, 100, 200, 200), (100, 80, 160, 100)),  # above the left corner
    ((100, 5, 200, 200), (100, 0, 160, 20)),  # pushed down into the frame
    ((620, 100, 640, 200), (580, 80, 640, 100)),  # pushed left into the frame
])
def test_the_preferred_place(anchor: tuple[int, int, int, int], place: tuple[int, int, int, int]) -> None:
    assert place_plates([anchor], [(60, 20)], FRAME) == [place]


def test_plates_of_one_place_do_not_cover_each_other() -> None:
    places = place_plates([(200, 150, 300, 250)] * 8, [(90, 20)] * 8, FRAME)
    assert places[0] == (200, 130, 290, 150)
    assert not any(overlap(a, b) for index, a in enumerate(places) for b in places[:index])


def test_a_plate_wider_than_the_frame_starts_at_its_edge() -> None:
    assert place_plates([(5, 5, 8, 8)], [(90, 20)], (40, 10)) == [(0, 0, 90, 20)]


@pytest.mark.parametrize(("size", "text_height"), [((240, 426), 9), ((720, 1280), 16), ((1080, 1920), 21),
                                                   ((2160, 3840), 37), ((1280, 720), 16), ((10, 10), 9)])
def test_text_grows_with_the_frame(size: tuple[int, int], text_height: int) -> None:
    assert PlateStyle.for_frame(*size).text_height == text_height


@pytest.mark.parametrize("size", [(240, 426), (720, 1280), (1080, 1920), (2160, 3840)])
def test_strokes_are_as_bold_in_every_size(size: tuple[int, int]) -> None:
    style = PlateStyle.for_frame(*size)
    assert 0.04 < style.stroke / style.text_height < 0.12 and style.border / style.text_height < 0.2


@pytest.mark.parametrize("size", [(240, 426), (720, 1280), (2160, 3840)])
@pytest.mark.parametrize("is_outlined", [False, True])
def test_text_and_plate_stay_in_the_place(size: tuple[int, int], is_outlined: bool) -> None:
    style = PlateStyle.for_frame(*size)
    text = "12 giant_panda 0.87"
    width, height = style.plate_size(text)
    canvas = np.full((height + 40, width + 40, 3), 128, np.uint8)
    draw_plate(canvas, (20, 20, 20 + width, 20 + height), text, (0, 200, 250), style, is_outlined=is_outlined)
    inside = canvas[20:20 + height, 20:20 + width].copy()
    canvas[19:21 + height, 19:21 + width] = 128  # the smoothed edge takes one pixel more
    assert (canvas == 128).all()
    ground = inside[style.padding:-style.padding, style.padding:-style.padding].reshape(-1, 3)
    is_dark = (ground.max(axis=1) < 60).mean()
    assert is_dark > 0.5 if is_outlined else 0.1 < is_dark < 0.5
