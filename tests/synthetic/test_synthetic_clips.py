"""Clips: determinism, and masks that say what the pictures show."""
from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from plain_scenes import HEIGHT, WIDTH, clip, still, thing, without

from stmask_deploy.errors import InputError
from stmask_deploy.synthetic.clips import MAX_CLIPS, MAX_FRAMES, MIN_VISIBLE_PIXELS, Clip, render
from stmask_deploy.synthetic.motion import Camera, Jolt, Trajectory

SMALL = (90, 160)

# Of val's clip 0, three small frames, with NumPy 2.4.6 and OpenCV 5.0 on x86-64.
RECORDED_CLASS_IDS = [2, 4, 1]
RECORDED_AREAS = [[615, 377, 284], [628, 355, 280], [625, 344, 274]]  # [frame][object], pixels
RECORDED_COLORS = [[105.4, 127.1, 138.1], [106.4, 127.3, 137.9], [107.4, 127.6, 137.7]]  # [frame], mean BGR


def pixels(one: Clip) -> np.ndarray:
    return np.stack([frame.image for frame in one])


@pytest.mark.parametrize("split", ["train", "val", "hard"])
def test_the_same_arguments_give_the_same_clip(split: str) -> None:
    one, other = render(split, 3, 4, SMALL), render(split, 3, 4, SMALL)
    assert np.array_equal(pixels(one), pixels(other))
    assert all(np.array_equal(one.masks(index), other.masks(index)) for index in range(4))
    assert np.array_equal(one.class_ids, other.class_ids)


def test_frames_can_be_asked_for_in_any_order() -> None:
    one = render("hard", 1, 5, SMALL)
    last, in_turn = one.frame(4), list(one)
    assert np.array_equal(last.image, in_turn[4].image)
    assert np.array_equal(last.masks, in_turn[4].masks)


def test_pictures_are_the_frames_without_masks() -> None:
    one = render("hard", 1, 5, SMALL)
    assert np.array_equal(np.stack(list(one.pictures())), pixels(one))


def test_splits_and_indices_are_different_clips() -> None:
    clips = [pixels(render(split, index, 1, SMALL)) for split in ("train", "val", "hard") for index in range(3)]
    for i, one in enumerate(clips):
        for other in clips[:i]:
            assert np.abs(one.astype(int) - other).mean() > 5


def test_recorded_clip() -> None:
    # Another machine or version may round differently, but must not draw something else.
    one = render("val", 0, 3, SMALL)
    assert one.class_ids.tolist() == RECORDED_CLASS_IDS
    areas = [one.masks(index).sum(axis=(1, 2)).tolist() for index in range(3)]
    np.testing.assert_allclose(areas, RECORDED_AREAS, rtol=0.01, atol=2)
    np.testing.assert_allclose(pixels(one).mean(axis=(1, 2)), RECORDED_COLORS, atol=0.5)


@pytest.mark.parametrize("split", ["train", "hard"])
def test_masks_are_disjoint_and_of_the_clips_objects(split: str) -> None:
    for index in range(3):
        one = render(split, index, 6, SMALL)
        assert one.ids.tolist() == list(range(1, len(one.class_ids) + 1))
        assert set(one.class_ids) <= set(range(1, 7))
        for frame in one:
            assert frame.masks.shape == (len(one.ids), *SMALL)
            assert frame.masks.dtype == np.bool_
            assert frame.masks.sum(axis=0).max() <= 1
            areas = frame.masks.sum(axis=(1, 2))
            assert np.all((areas == 0) | (areas >= MIN_VISIBLE_PIXELS))


def test_every_object_is_seen_for_some_frames() -> None:
    for split, count in (("train", 5), ("hard", 2)):
        for index in range(count):
            one = render(split, index, size=SMALL)
            seen = sum(one.masks(time).any(axis=(1, 2)).astype(int) for time in range(one.num_frames))
            assert np.min(seen) >= 3
            assert 2 <= len(one.ids) <= 7


def test_a_mask_is_where_the_object_shines() -> None:
    one = clip(thing(still(0.8, 0.5, 0.6)))
    frame = one.frame(0)
    assert np.array_equal(frame.masks[0], frame.image[:, :, 0] >= 128)
    assert frame.masks[0].sum() > 500


def test_a_mask_is_the_polygon_at_pixel_centres() -> None:
    # The slow twin: is the centre of the pixel inside? Where it is closer to the edge than a fifth, either will do.
    star = thing(still(0.8, 0.5, 0.6))
    mask = clip(star).masks(0)[0]
    outline = star.outline(Camera(), 0, HEIGHT, WIDTH).astype(np.float32)
    for y in range(HEIGHT):
        for x in range(WIDTH):
            inside = cv2.pointPolygonTest(outline, (x, y), True)
            assert abs(inside) < 0.5 or mask[y, x] == (inside > 0)


def test_covered_pixels_belong_to_the_object_in_front() -> None:
    behind, before = thing(still(0.7, 0.5, 0.6)), thing(still(0.9, 0.5, 0.4), class_id=3, level=128)
    both = clip(behind, before)
    masks, alone = both.masks(0), [without(both, 1).masks(0)[0], without(both, 0).masks(0)[0]]
    assert np.array_equal(masks[1], alone[1])
    assert np.array_equal(masks[0], alone[0] & ~alone[1])
    assert 0 < masks[0].sum() < alone[0].sum()


def test_masks_are_what_changes_when_the_object_is_taken_away() -> None:
    full = render("val", 2, 3, SMALL)
    full = replace(full, scene=replace(full.scene, has_shadows=False))
    numbers = [number for number, one in enumerate(full.scene.things) if one.class_id]
    for row, number in enumerate(numbers):
        difference = pixels(full).astype(int) - pixels(without(full, number))
        for index in range(3):
            mask = full.masks(index)[row].astype(np.uint8)
            changed = np.abs(difference[index]).max(axis=2) > 0
            assert not changed[cv2.dilate(mask, np.ones((5, 5), np.uint8)) == 0].any()
            if mask.any():
                assert changed[mask > 0].mean() > 0.9


def test_things_of_no_class_cover_but_are_not_annotated() -> None:
    hidden = clip(thing(still(0.8, 0.5, 0.3)), thing(still(0.8, 0.5, 0.9), "heart", class_id=0, level=90))
    assert hidden.ids.tolist() == [1]
    assert not hidden.masks(0).any()
    assert hidden.frame(0).image.max() == 90


def test_out_of_view_is_no_mask() -> None:
    leaving = clip(thing(Trajectory((1.5, 0.5), 0.0, (0.2, 0.0), 0.4)), num_frames=6)
    areas = [int(leaving.masks(index).sum()) for index in range(6)]
    assert areas[0] > areas[1] > areas[-1] == 0
    assert leaving.frame(5).image.max() == 0


def test_a_sliver_counts_as_nothing() -> None:
    # The right tip of the star reaches a few pixels into the picture.
    for x in np.linspace(-0.3, 0, 20):
        lit = int((clip(thing(still(x, 0.5, 0.4))).frame(0).image[:, :, 0] >= 128).sum())
        area = int(clip(thing(still(x, 0.5, 0.4))).masks(0).sum())
        assert area == (lit if lit >= MIN_VISIBLE_PIXELS else 0)


def test_an_open_shutter_blurs_along_the_motion_about_the_mask() -> None:
    moving = Trajectory((0.4, 0.5), 0.0, (0.1, 0.0), 0.4)
    sharp, blurred = clip(thing(moving)), clip(thing(moving), shutter=0.8)
    assert np.array_equal(sharp.masks(2), blurred.masks(2))
    images = [one.frame(2).image[:, :, 0].astype(float) for one in (sharp, blurred)]
    grey = [((image > 20) & (image < 235)).sum() for image in images]
    assert grey[1] > 3 * grey[0]
    assert images[1].sum() == pytest.approx(images[0].sum(), rel=0.02)
    centres = [(image * np.arange(WIDTH)).sum() / image.sum() for image in images]
    assert centres[1] == pytest.approx(centres[0], abs=0.5)


def test_a_still_scene_is_not_blurred() -> None:
    sharp, exposed = clip(thing(still(0.8, 0.5, 0.5))), clip(thing(still(0.8, 0.5, 0.5)), shutter=1.0)
    assert np.array_equal(sharp.frame(0).image, exposed.frame(0).image)


def test_a_jolt_moves_objects_and_background_alike() -> None:
    camera = Camera(jolts=(Jolt(0.0, 4.0, (0.2, 0.0)),))
    one = clip(thing(still(0.8, 0.5, 0.4)), camera=camera)
    columns = [np.argwhere(one.masks(index)[0])[:, 1].mean() for index in range(5)]
    assert columns[1] == pytest.approx(columns[0] - 0.2 * HEIGHT, abs=0.5)
    assert columns[4] == pytest.approx(columns[0], abs=0.5)
    assert camera.position(1.0)[0] == pytest.approx(0.2)


@pytest.mark.parametrize("size", [(32, 32), (33, 61), (40, 400), (400, 40)])
def test_any_size(size: tuple[int, int]) -> None:
    frame = render("hard", 0, 2, size).frame(1)
    assert (frame.image.shape, frame.image.dtype) == ((*size, 3), np.uint8)
    assert frame.masks.shape[1:] == size


@pytest.mark.parametrize(("arguments", "message"), [
    (("test", 0), "no split 'test'; there are train, val, hard"),
    (("val", 0, 3, (31, 64)), "sides are 32 to 4096 pixels"),
    (("val", 0, 3, (64, 4097)), "sides are 32 to 4096 pixels"),
    (("val", -1), "clips count from 0 to 99999"),
    (("val", MAX_CLIPS), "clip 100000 of 30 frames is not possible; clips count from 0 to 99999"),
    (("val", 0, 0), "and have 1 to 10000 frames"),
    (("val", 0, MAX_FRAMES + 1), "and have 1 to 10000 frames"),
])
def test_what_cannot_be(arguments: tuple, message: str) -> None:
    with pytest.raises(InputError, match=message):
        render(*arguments)
