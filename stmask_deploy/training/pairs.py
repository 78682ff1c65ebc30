"""Pairs of frames with their targets, drawn from a dataset in YouTube-VIS format."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from ..config import ModelConfig
from ..datasets.annotations import Annotations, Video
from ..datasets.frames import read_frame
from ..datasets.segmentation import decode
from ..errors import InputError
from .augmentation import Colors, PairAugmentation, View
from .copy_paste import SeenFrame, SeenObject, paste
from .targets import FrameTargets, PairBatch

MIN_PIXELS = 16  # at the network's input size; smaller objects are ignored
CELL = 4  # side of a prototype cell in pixels
PASTED_SHARE = 0.5  # probability that an object of the source pair is pasted


class PairDataset(Dataset[PairBatch]):
    """Sample i is a pair of frames of one video that depends only on (seed, i), so that training can be resumed.

    Once per epoch, every annotated frame is the first of a pair; each epoch is shuffled anew. The second frame lies up
    to `max_gap` frames before or after it (paper section 4: 5).

    Args:
        annotations: of the dataset; its class names become those of the network, in the order of their ids.
        frames_folder: base folder of the videos' file names.
        config: the network the samples are for.
        num_samples: length, possibly many epochs.
        max_gap: largest distance between the two frames.
        seed: of order, gaps and augmentation.
        copy_paste: fraction of the pairs onto which objects of another video may be pasted, from two frames with the
            same gap. Nothing is pasted if the same video or no object is drawn, or no such pair exists.

    Raises:
        InputError: there is no annotated frame.
    """

    def __init__(self, annotations: Annotations, frames_folder: Path, config: ModelConfig, num_samples: int,
                 max_gap: int = 5, seed: int = 0, copy_paste: float = 0.0) -> None:
        self._folder, self._config = frames_folder, config
        self._num_samples, self._max_gap, self._seed, self._copy_paste = num_samples, max_gap, seed, copy_paste
        ids = sorted(category.id for category in annotations.categories)
        self._class_ids = {category_id: position for position, category_id in enumerate(ids, start=1)}
        self._tracks = {video.id: annotations.tracks_of(video.id) for video in annotations.videos}
        self._keys = [(video, index) for video in annotations.videos for index in range(video.length)
                      if any(track.segmentations[index] is not None for track in self._tracks[video.id])]
        if not self._keys:
            raise InputError(f"{annotations.path} has no annotated frame to learn from")

    def __len__(self) -> int:
        return self._num_samples

    @property
    def num_keys(self) -> int:
        """Number of annotated frames, which is the number of samples in an epoch."""
        return len(self._keys)

    def __getitem__(self, index: int) -> PairBatch:
        """One pair, as a batch of size one."""
        epoch, position = divmod(index, len(self._keys))
        order = np.random.default_rng([self._seed, 1, epoch]).permutation(len(self._keys))
        rng = np.random.default_rng([self._seed, 2, index])
        video, first = self._keys[order[position]]
        second = self._second(rng, video, first)
        pair = self._seen(rng, video, (first, second))
        if rng.random() < self._copy_paste:
            pair = self._paste(rng, pair, video, abs(second - first))
        (frame_a, targets_a), (frame_b, targets_b) = ((torch.from_numpy(one.picture), self._targets(one))
                                                      for one in pair)
        return PairBatch(frame_a[None], frame_b[None], (targets_a,), (targets_b,), torch.tensor([abs(second - first)]))

    def _second(self, rng: np.random.Generator, video: Video, first: int) -> int:
        near = [index for index in range(max(0, first - self._max_gap), min(video.length, first + self._max_gap + 1))
                if index != first]
        return int(rng.choice(near)) if near else first

    def _paste(self, rng: np.random.Generator, pair: list[SeenFrame], video: Video, gap: int) -> list[SeenFrame]:
        """`pair`, whose frames are `gap` apart, with objects pasted in front from such a pair of another video."""
        other, first = self._keys[rng.integers(len(self._keys))]
        seconds = [index for index in (first - gap, first + gap) if 0 <= index < other.length]
        if other.id == video.id or not seconds:
            return pair
        source = self._seen(rng, other, (first, int(rng.choice(seconds))))
        track_ids = {track.id for track in self._tracks[other.id]
                     if not track.is_crowd and rng.random() < PASTED_SHARE}
        return [paste(onto, one, track_ids) for onto, one in zip(pair, source, strict=True)]

    def _seen(self, rng: np.random.Generator, video: Video, indices: Sequence[int]) -> list[SeenFrame]:
        """Two frames of a video, in the same random view."""
        augmentation = PairAugmentation.draw(rng, (video.height, video.width), self._config.input_size)
        return [self._seen_frame(video, index, augmentation.view, colors)
                for index, colors in zip(indices, augmentation.colors, strict=True)]

    def _seen_frame(self, video: Video, index: int, view: View, colors: Sequence[Colors]) -> SeenFrame:
        border = tuple(round(value) for value in reversed(self._config.pixel_mean))  # BGR; zero once normalised
        picture = view.apply(read_frame(self._folder, video, index), border)
        for change in colors:
            picture = change.apply(picture)
        objects = ((track, track.segmentations[index]) for track in self._tracks[video.id])
        return SeenFrame(picture, tuple(SeenObject(track, view.apply(decode(mask).astype(np.uint8) * 255, (0,)))
                                        for track, mask in objects if mask is not None))

    def _targets(self, frame: SeenFrame) -> FrameTargets:
        (height, width), padded = self._config.input_size, self._config.padded_size
        boxes, classes, ids, masks, ignored = [], [], [], [], []
        for one in frame.objects:
            covered = one.coverage > 127
            rows, columns = (np.flatnonzero(covered.any(axis=axis)) for axis in (1, 0))
            if not len(rows):
                continue
            box = (columns[0] / padded[1], rows[0] / padded[0], (columns[-1] + 1) / padded[1],
                   (rows[-1] + 1) / padded[0])
            if one.track.is_crowd or np.count_nonzero(covered) < MIN_PIXELS:
                ignored.append(box)
                continue
            canvas = np.zeros(padded, np.uint8)
            canvas[:height, :width] = one.coverage
            masks.append(cv2.resize(canvas, (padded[1] // CELL, padded[0] // CELL), interpolation=cv2.INTER_AREA))
            boxes.append(box)
            classes.append(self._class_ids[one.track.category_id])
            ids.append(one.track.id)
        cells = np.stack(masks) if masks else np.zeros((0, padded[0] // CELL, padded[1] // CELL), np.uint8)
        return FrameTargets(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
                            torch.tensor(classes, dtype=torch.int64), torch.tensor(ids, dtype=torch.int64),
                            torch.from_numpy(cells).float() / 255,
                            torch.tensor(ignored, dtype=torch.float32).reshape(-1, 4))


def collate(samples: Sequence[PairBatch]) -> PairBatch:
    """Concatenate batches of size one."""
    return PairBatch(torch.cat([one.first for one in samples]), torch.cat([one.second for one in samples]),
                     tuple(one.first_targets[0] for one in samples), tuple(one.second_targets[0] for one in samples),
                     torch.cat([one.gaps for one in samples]))
