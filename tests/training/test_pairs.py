"""Pairs of frames: which they are, and that targets and pictures agree."""
from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny_training import CATEGORY_IDS, CONFIG, SIZE, Thing, read_clips, same, write_clips

from stmask_deploy.datasets.annotations import read_annotations
from stmask_deploy.errors import InputError
from stmask_deploy.models.frames import prepare_frames
from stmask_deploy.training.augmentation import PairAugmentation, View
from stmask_deploy.training.pairs import PairDataset, collate
from stmask_deploy.training.targets import FrameTargets, PairBatch

ODD = replace(CONFIG, input_size=(90, 160))  # padded to 96 x 160
MOVING = ((Thing("box", (20, 24), (2, 4), 20), Thing("disc", (40, 70), (-1, -3), 22)),)


def gray_clips(folder: Path, frames: int, clips: int = 1) -> PairDataset:
    """A dataset whose pictures tell their number: clip * 50 + frame."""
    things = [Thing("box", (30, 40), (0, 0), 30)]
    annotations, pictures = read_clips(folder, [things] * clips, frames=frames)
    for video in annotations.videos:
        for index, name in enumerate(video.file_names):
            cv2.imwrite(str(pictures / name), np.full((*SIZE, 3), (video.id - 1) * 50 + index, np.uint8))
    return PairDataset(annotations, pictures, CONFIG, 10_000, max_gap=2, seed=3)


def numbers(dataset: PairDataset, index: int) -> tuple[int, int]:
    pair = dataset[index]
    return int(pair.first[0, 30, 30, 0]), int(pair.second[0, 30, 30, 0])


def test_a_sample_depends_on_seed_and_index_alone(tmp_path: Path) -> None:
    annotations, frames = read_clips(tmp_path)

    def dataset(seed: int, length: int = 100) -> PairDataset:
        return PairDataset(annotations, frames, CONFIG, length, seed=seed)

    forwards = [dataset(5)[index] for index in range(12)]
    other = dataset(5, length=9999)
    assert len(other) == 9999
    for index in reversed(range(12)):
        assert same(forwards[index], other[index])
    assert not any(same(forwards[index], dataset(6)[index]) for index in range(4))
    assert not same(forwards[0], forwards[8])  # the second epoch


@pytest.mark.usefixtures("unaugmented")
def test_every_annotated_frame_comes_first_once_an_epoch(tmp_path: Path) -> None:
    dataset = gray_clips(tmp_path, frames=5, clips=2)
    assert dataset.num_keys == 10
    epochs = [[numbers(dataset, 10 * epoch + position)[0] for position in range(10)] for epoch in range(3)]
    for epoch in epochs:
        assert sorted(epoch) == [*range(5), *range(50, 55)]
    assert epochs[0] != epochs[1] != epochs[2]


@pytest.mark.usefixtures("unaugmented")
def test_the_second_frame_is_near_in_both_directions(tmp_path: Path) -> None:
    dataset = gray_clips(tmp_path, frames=7, clips=2)
    gaps = Counter()
    for index in range(140):
        first, second = numbers(dataset, index)
        assert first // 50 == second // 50
        assert dataset[index].gaps.tolist() == [abs(second - first)]
        gaps[second - first] += 1
    assert set(gaps) == {-2, -1, 1, 2}
    assert min(gaps.values()) > 15


@pytest.mark.usefixtures("unaugmented")
def test_a_video_of_one_frame_is_its_own_partner(tmp_path: Path) -> None:
    dataset = gray_clips(tmp_path, frames=1)
    pair = dataset[0]
    assert torch.equal(pair.first, pair.second)
    assert pair.first_targets[0].track_ids.tolist() == pair.second_targets[0].track_ids.tolist() == [1]
    assert pair.gaps.tolist() == [0]


@pytest.mark.usefixtures("unaugmented")
def test_frames_without_objects_are_partners_only(tmp_path: Path) -> None:
    annotations, frames = read_clips(tmp_path, [[Thing("box", (30, 40), (0, 0), 30, frames=(1,))]], frames=3)
    dataset = PairDataset(annotations, frames, CONFIG, 50)
    assert dataset.num_keys == 1
    for index in range(10):
        pair = dataset[index]
        assert len(pair.first_targets[0]) == 1
        empty = pair.second_targets[0]
        shapes = {name: tuple(getattr(empty, name).shape) for name in vars(empty)}
        assert shapes == {"boxes": (0, 4), "class_ids": (0,), "track_ids": (0,), "masks": (0, 16, 24),
                          "ignored": (0, 4)}
        assert empty.boxes.dtype == torch.float32 and empty.track_ids.dtype == torch.int64


def bright_pixels(frame: torch.Tensor) -> NDArray[np.bool_]:
    """(H, W) where white outweighs the border and the grey background."""
    return np.asarray(frame[0].float().mean(dim=-1) > 172, np.bool_)


@pytest.mark.parametrize("config", [CONFIG, ODD])
def test_boxes_and_masks_are_where_the_picture_shows_the_object(tmp_path: Path, config: Any,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    draw = PairAugmentation.draw
    monkeypatch.setattr(PairAugmentation, "draw", lambda *arguments: replace(draw(*arguments), colors=((), ())))
    thing = Thing("box", (30, 30), (1, 5), 24, (255, 255, 255))  # left of the middle: mirroring moves it
    annotations, frames = read_clips(tmp_path, [[thing]])
    dataset = PairDataset(annotations, frames, config, 200, seed=1)
    (height, width), padded = config.input_size, config.padded_size
    seen_left = seen_right = 0
    for index in range(40):
        pair = dataset[index]
        for frame, targets in ((pair.first, pair.first_targets[0]), (pair.second, pair.second_targets[0])):
            assert frame.shape == (1, height, width, 3) and frame.dtype == torch.uint8
            pixels = bright_pixels(frame)
            if not len(targets):
                assert not pixels.any()  # moved out of the view
                continue
            box = targets.boxes[0].numpy() * (padded[1], padded[0], padded[1], padded[0])
            rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
            np.testing.assert_allclose(box, (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1), atol=1.01)
            canvas = np.zeros(padded, np.float32)
            canvas[:height, :width] = pixels
            shares = canvas.reshape(padded[0] // 4, 4, padded[1] // 4, 4).mean(axis=(1, 3))
            assert targets.masks.shape == (1, *shares.shape)
            np.testing.assert_allclose(targets.masks[0].numpy(), shares, atol=0.3)  # half covered pixels
            assert np.abs(targets.masks[0].numpy() - shares).mean() < 0.02
            seen_left += columns.mean() < width * 0.4
            seen_right += columns.mean() > width * 0.6
    assert seen_left > 5 and seen_right > 5


@pytest.mark.usefixtures("unaugmented")
def test_without_augmentation_the_numbers_are_those_of_the_dataset(tmp_path: Path) -> None:
    annotations, frames = read_clips(tmp_path, [[Thing("box", (29.5, 19.5), (0, 0), 16)]], frames=1)
    config = replace(CONFIG, input_size=(64, 90))  # padded to 64 x 96
    targets = PairDataset(annotations, frames, config, 1)[0].first_targets[0]
    # The box spans rows 22 to 37, columns 12 to 27 of 64 x 96.
    expected = [12 * 90 / 96 / 96, 22 / 64, 28 * 90 / 96 / 96, 38 / 64]
    assert targets.boxes[0].numpy() == pytest.approx(expected, abs=0.011)
    assert float(targets.masks.sum()) == pytest.approx(16 * 16 * 90 / 96 / 16, rel=0.02)
    same_size = PairDataset(annotations, frames, replace(CONFIG, input_size=SIZE), 1)[0].first_targets[0]
    assert same_size.boxes[0].numpy() * (SIZE[1], SIZE[0], SIZE[1], SIZE[0]) == pytest.approx([12, 22, 28, 38])


def test_tracks_and_classes_keep_their_identity(tmp_path: Path) -> None:
    annotations, frames = read_clips(tmp_path, [*MOVING, *MOVING], frames=3)
    tracks = {track.id: track for track in annotations.tracks}
    dataset = PairDataset(annotations, frames, CONFIG, 100)
    linked = 0
    for index in range(20):
        pair = dataset[index]
        for targets in (*pair.first_targets, *pair.second_targets):
            for track_id, class_id in zip(targets.track_ids.tolist(), targets.class_ids.tolist(), strict=True):
                assert class_id == 1 + CATEGORY_IDS.index(tracks[track_id].category_id)
        first, second = (set(one[0].track_ids.tolist()) for one in (pair.first_targets, pair.second_targets))
        linked += len(first & second)
        assert len({tracks[one].video_id for one in first | second}) == 1
    assert linked > 30


@pytest.mark.usefixtures("unaugmented")
def test_crowds_and_tiny_objects_are_ignored_regions(tmp_path: Path) -> None:
    things = [Thing("box", (30, 30), (0, 0), 20, is_crowd=True), Thing("disc", (50, 80), (0, 0), 3),
              Thing("disc", (30, 70), (0, 0), 20)]
    annotations, frames = read_clips(tmp_path, [things], frames=1)
    targets = PairDataset(annotations, frames, CONFIG, 1)[0].first_targets[0]
    assert targets.track_ids.tolist() == [3] and len(targets.boxes) == len(targets.masks) == 1
    assert len(targets.ignored) == 2
    centers = (targets.ignored[:, :2] + targets.ignored[:, 2:]) / 2 * torch.tensor([SIZE[1], SIZE[0]])
    np.testing.assert_allclose(centers.numpy(), [[30.5, 30.5], [80.5, 50.5]], atol=0.6)


def test_polygons_are_the_same_as_masks(tmp_path: Path) -> None:
    path = write_clips(tmp_path, [[Thing("box", (29.5, 39.5), (0, 0), 16)]], frames=1)
    from_mask = PairDataset(read_annotations(path), tmp_path / "JPEGImages", CONFIG, 5)
    values = json.loads(path.read_text())
    values["annotations"][0]["segmentations"] = [[[32, 22, 48, 22, 48, 38, 32, 38]]]
    path.write_text(json.dumps(values))
    from_polygon = PairDataset(read_annotations(path), tmp_path / "JPEGImages", CONFIG, 5)
    for index in range(5):
        assert same(from_mask[index], from_polygon[index])


def test_the_border_becomes_zero_when_it_is_normalised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    half = View(np.array([[0.5, 0, 0], [0, 0.5, 0]]), SIZE)
    monkeypatch.setattr(PairAugmentation, "draw", lambda *_arguments: PairAugmentation(half, ((), ())))
    annotations, frames = read_clips(tmp_path)
    config = replace(CONFIG, pixel_mean=(10.0, 20.0, 200.0))
    prepared = prepare_frames(PairDataset(annotations, frames, config, 1)[0].first, config)[0]
    nothing = (prepared == 0).all(dim=0)
    assert bool(nothing[33:].all()) and bool(nothing[:, 49:].all()) and not bool(nothing[:31, :47].any())


def test_collate_keeps_the_order(tmp_path: Path) -> None:
    annotations, frames = read_clips(tmp_path)
    dataset = PairDataset(annotations, frames, CONFIG, 10)
    samples = [dataset[index] for index in (4, 1, 8)]
    assert len({int(sample.gaps) for sample in samples}) == 3
    batch = collate(samples)
    assert batch.first.shape == batch.second.shape == (3, *SIZE, 3)
    for row, sample in enumerate(samples):
        assert same(sample, PairBatch(batch.first[row:row + 1], batch.second[row:row + 1],
                                      batch.first_targets[row:row + 1], batch.second_targets[row:row + 1],
                                      batch.gaps[row:row + 1]))


def test_targets_move_as_a_whole(tmp_path: Path) -> None:
    annotations, frames = read_clips(tmp_path)
    pair = PairDataset(annotations, frames, CONFIG, 1)[0]
    moved = pair.to("meta")
    assert moved.first.is_meta and moved.gaps.is_meta and moved.second_targets[0].masks.is_meta
    assert {name for name, value in vars(moved.first_targets[0]).items() if value.is_meta} == set(
        FrameTargets.__dataclass_fields__)


def test_no_annotated_frame(tmp_path: Path) -> None:
    annotations, frames = read_clips(tmp_path, [[Thing("box", (30, 40), (0, 0), 30, frames=())]])
    with pytest.raises(InputError, match="no annotated frame"):
        PairDataset(annotations, frames, CONFIG, 1)


@pytest.mark.parametrize(("content", "message"), [
    (b"not a picture", "cannot be read as a picture"), (b"", "cannot be read as a picture"),
    (cv2.imencode(".png", np.zeros((32, 96, 3), np.uint8))[1].tobytes(), "32x96 pixels, its annotations are for 64x96"),
])
def test_a_frame_that_is_no_picture_of_the_video(tmp_path: Path, content: bytes, message: str) -> None:
    annotations, frames = read_clips(tmp_path, MOVING, frames=1)
    (frames / "clip1" / "00000.png").write_bytes(content)
    dataset = PairDataset(annotations, frames, CONFIG, 1)
    with pytest.raises(InputError, match=message):
        dataset[0]


def test_a_batch_goes_to_a_device_as_a_whole(tmp_path: Path) -> None:
    annotations, frames = read_clips(tmp_path)
    dataset = PairDataset(annotations, frames, CONFIG, 2)
    batch = collate([dataset[0], dataset[1]]).to("meta")
    tensors = [batch.first, batch.second, batch.gaps, *(value for targets in (
        *batch.first_targets, *batch.second_targets) for value in vars(targets).values())]
    assert len(tensors) == 3 + 4 * 5 and {tensor.device.type for tensor in tensors} == {"meta"}
