from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from results_sample import frame_result

from stmask_deploy.runtime import drawing
from stmask_deploy.runtime.colors import identity_color
from stmask_deploy.runtime.drawing import DETECTED_OPACITY, PROPAGATED_OPACITY, draw_result
from stmask_deploy.runtime.label_plates import PlateStyle, place_plates


def ground(size: tuple[int, int] = (360, 640)) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)


def test_the_frame_is_copied() -> None:
    image = ground()
    before = image.copy()
    drawn = draw_result(image, frame_result())
    assert (drawn.shape, drawn.dtype) == (image.shape, np.uint8)
    assert np.array_equal(image, before)
    assert not np.array_equal(drawn, image)


def test_nothing_to_draw() -> None:
    assert np.array_equal(draw_result(ground(), frame_result([])), ground())


@pytest.mark.parametrize(("age", "opacity"), [(0, DETECTED_OPACITY), (3, PROPAGATED_OPACITY)])
def test_the_mask_is_blended_with_the_colour_of_the_id(age: int, opacity: float) -> None:
    image = ground()
    drawn = draw_result(image, frame_result([(0.5, 0.5, 0.3)], ids=[17], ages=[age]))
    expected = image * (1 - opacity) + np.array(identity_color(17)) * opacity
    inside = (slice(150, 210), slice(290, 350))
    assert np.abs(drawn[inside] - expected[inside]).max() <= 0.5 + 1e-9
    outside = np.ones(image.shape[:2], bool)
    outside[20:300, 200:440] = False
    assert np.array_equal(drawn[outside], image[outside])


def test_the_same_id_has_the_same_colour_among_others() -> None:
    image = np.full((360, 640, 3), 90, np.uint8)
    alone = draw_result(image, frame_result([(0.75, 0.5, 0.2)], ids=[4], index=0))
    among = draw_result(image, frame_result([(0.2, 0.5, 0.2), (0.75, 0.5, 0.2)], ids=[9, 4], index=8))
    assert np.array_equal(alone[180, 480], among[180, 480])
    assert not np.array_equal(alone[180, 480], among[180, 128])


@pytest.mark.parametrize("size", [(120, 200), (400, 640), (1000, 400), (800, 1280), (2000, 3200)])
def test_outlines_are_as_wide_as_the_frame_is_large(size: tuple[int, int]) -> None:
    result = frame_result([(0.5, 0.5, 0.3)], size, ids=[0])
    middle = draw_result(np.full((*size, 3), 90, np.uint8), result)[size[0] // 2].astype(int)
    left = int(np.nonzero(result.masks[0][size[0] // 2])[0][0])
    has_color = np.abs(middle - identity_color(0)).max(axis=1) < 50
    line = np.nonzero(has_color[:size[1] // 2])[0]
    expected = max(1, min(size) / 400)
    assert expected <= len(line) == line[-1] - line[0] + 1 <= expected + 2
    assert abs((line[0] + line[-1]) / 2 - left) <= 1
    assert middle[line[0] - 1].max() < 80 and middle[line[-1] + 1].max() < 80  # dark on both sides


def test_propagated_instances_look_different() -> None:
    image = np.full((360, 640, 3), 90, np.uint8)
    result = frame_result([(0.5, 0.5, 0.3)], ids=[0])
    color = np.array(identity_color(0))
    y, x = np.nonzero(result.masks[0])
    edge = np.zeros(image.shape[:2], bool)
    for row in np.unique(y)[10:-10]:  # left and right end of every line of the mask
        edge[row, [x[y == row].min(), x[y == row].max()]] = True

    def solid_share(age: int) -> float:
        drawn = draw_result(image, frame_result([(0.5, 0.5, 0.3)], ids=[0], ages=[age]))
        return float((np.abs(drawn[edge] - color).max(axis=1) < 40).mean())

    assert solid_share(0) > 0.7
    assert 0.2 < solid_share(2) < 0.6


def test_between_key_frames_instances_look_detected_until_one_misses_them() -> None:
    image = np.full((360, 640, 3), 90, np.uint8)

    def drawn(age: int, detect_every: int) -> np.ndarray:
        return draw_result(image, frame_result([(0.5, 0.5, 0.3)], ids=[0], ages=[age]), detect_every)

    assert np.array_equal(drawn(2, 3), drawn(0, 1))
    assert np.array_equal(drawn(3, 3), drawn(1, 1))
    assert not np.array_equal(drawn(2, 3), drawn(3, 3))


def test_a_small_mask_is_drawn_over_a_large_one() -> None:
    image = np.full((360, 640, 3), 90, np.uint8)
    discs = [(0.5, 0.5, 0.08), (0.5, 0.5, 0.4)]
    small_first = draw_result(image, frame_result(discs, ids=[1, 2], scores=[0.5, 0.6], class_ids=[1, 1]))
    small_last = draw_result(image, frame_result(discs[::-1], ids=[2, 1], scores=[0.6, 0.5], class_ids=[1, 1]))
    assert np.array_equal(small_first[150:210, 290:350], small_last[150:210, 290:350])
    under = 90 * (1 - DETECTED_OPACITY) + np.array(identity_color(2)) * DETECTED_OPACITY
    over = under * (1 - DETECTED_OPACITY) + np.array(identity_color(1)) * DETECTED_OPACITY
    assert np.abs(small_first[180, 320] - over).max() < 1.1


def test_a_hole_in_a_mask_has_an_outline() -> None:
    image = np.full((360, 640, 3), 90, np.uint8)
    ring, hole = frame_result([(0.5, 0.5, 0.4)], ids=[1]), frame_result([(0.5, 0.5, 0.2)])
    drawn = draw_result(image, dataclasses.replace(ring, soft_masks=ring.soft_masks * (1 - hole.soft_masks)))
    inner = np.flatnonzero(hole.masks[0][180])
    for edge in (inner[0], inner[-1]):
        assert np.abs(drawn[180, edge - 2:edge + 3].astype(int) - identity_color(1)).max(axis=1).min() < 40
    assert (drawn[180, inner[10]:inner[-10]] == 90).all()


def test_the_best_plate_is_on_top_where_there_is_no_room() -> None:
    image = np.full((40, 64, 3), 90, np.uint8)
    many = [(0.5, 0.5, 0.3)] * 12
    alone = draw_result(image, frame_result(many[:1], (40, 64), ids=[7], scores=[0.9]))
    drawn = draw_result(image, frame_result(many, (40, 64), ids=[3] * 11 + [7], scores=[0.5] * 11 + [0.9]))
    style = PlateStyle.for_frame(40, 64)
    x1, y1, x2, y2 = place_plates([frame_result(many[:1], (40, 64)).boxes_px[0].astype(int).tolist()],
                                  [style.plate_size("7")], (64, 40))[0]
    assert np.array_equal(drawn[y1 + 2:y2 - 2, x1 + 2:x2 - 2], alone[y1 + 2:y2 - 2, x1 + 2:x2 - 2])


def test_an_empty_mask_shows_its_box() -> None:
    image = np.full((360, 640, 3), 90, np.uint8)
    result = frame_result([(0.5, 0.5, 0)], ids=[5])
    assert result.patches[0].pixels.size == 0
    drawn = draw_result(image, result)
    x1, y1, x2, y2 = result.boxes_px[0].round().astype(int).tolist()
    for edge in (drawn[y2 - 1, x1 + 5:x2 - 5], drawn[y1 + 5:y2 - 5, x1], drawn[y1 + 5:y2 - 5, x2 - 1]):
        assert np.abs(edge.astype(int) - identity_color(5)).max() < 90
    outside = (drawn[y2 + 6:], drawn[y1 + 6:, :x1 - 6], drawn[y1 + 6:, x2 + 6:])  # the plate is above the box
    assert all((part == 90).all() for part in outside)
    assert np.array_equal(drawn[y1 + 6:y2 - 6, x1 + 6:x2 - 6], image[y1 + 6:y2 - 6, x1 + 6:x2 - 6])


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (16, 200), (240, 426), (1080, 1920), (333, 77)])
def test_any_frame_size(size: tuple[int, int]) -> None:
    image = ground(size)
    discs = [(0.5, 0.5, 0.3), (0.0, 0.0, 0.2), (1.0, 1.0, 0.2), (0.5, 0.5, 0)]
    drawn = draw_result(image, frame_result(discs, size, ages=[0, 1, 0, 2]))
    assert drawn.shape == image.shape


def test_a_crowd() -> None:
    rng = np.random.default_rng(1)
    discs = [(rng.uniform(), rng.uniform(), rng.uniform(0.02, 0.3)) for _ in range(120)]
    result = frame_result(discs, scores=[0.5] * 120, ages=[row % 4 for row in range(120)])
    assert draw_result(ground(), result).shape == (360, 640, 3)


def test_a_read_only_frame_will_do() -> None:
    image = ground()
    image.flags.writeable = False
    draw_result(image, frame_result())


@pytest.mark.parametrize(("size", "text"), [
    ((32, 48), "3"), ((110, 200), "3 {label}"), ((180, 320), "3 {label} {score:.2f}")])
def test_plates_leave_something_of_a_small_picture(monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], text: str
                                                   ) -> None:
    told: list[str] = []
    monkeypatch.setattr(drawing, "draw_plate", lambda _canvas, _place, text, *_, **__: told.append(text))
    shown = frame_result([(0.5, 0.5, 0.3)], ids=[3], size=size)
    draw_result(ground(size), shown)
    assert told == [text.format(label=shown.labels[0], score=shown.scores[0])]
