"""Clips of coloured rectangles and discs, written as a dataset, and networks small enough to learn them in a test."""
from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from stmask_deploy.config import Calibration, CenternessOrder, ModelConfig, TemporalConfig
from stmask_deploy.datasets.annotations import Annotations, read_annotations
from stmask_deploy.datasets.segmentation import encode
from stmask_deploy.training.options import TrainingOptions
from stmask_deploy.training.processes import Process
from stmask_deploy.training.targets import PairBatch

SIZE = (64, 96)  # height, width of every clip unless said otherwise
CLASS_NAMES = ("box", "disc")
CATEGORY_IDS = (3, 8)  # ids with gaps, as datasets have them
ALONE = Process(0, 1, "cpu")
Mask = NDArray[np.bool_]

CONFIG = ModelConfig(
    class_names=CLASS_NAMES, stem_width=8, depths=(1, 1, 1, 1), widths=(8, 8, 12, 12), expansion=2, fpn_width=16,
    num_downsamples=1, proto_width=16, num_prototypes=8, head_width=16, tower_depth=1, embedding_dim=8,
    centerness_order=CenternessOrder.ANCHOR, temporal=TemporalConfig(patch_size=5, roi_size=5, widths=(16, 16, 16)),
    input_size=SIZE)
CALIBRATED = replace(CONFIG, deformable_blocks=((2, 0),), class_calibration=Calibration.ADAPTIVE,
                     mask_calibration=Calibration.ADAPTIVE, track_calibration=Calibration.ADAPTIVE)
OPTIONS = TrainingOptions(iterations=6, pairs_per_batch=2, optimizer="adamw", learning_rate=3e-3, weight_decay=1e-3,
                          decay="cosine", ema_decay=0.9, positive_iou=0.4, negative_iou=0.3, validate_every=1000)


@dataclass(frozen=True)
class Thing:
    """One object of a clip, moving evenly."""

    kind: str  # box | disc
    center: tuple[float, float]  # y, x in the first frame, pixels
    step: tuple[float, float]  # a frame
    side: float  # of the box, or the disc's diameter
    color: tuple[int, int, int] = (0, 0, 255)  # BGR
    frames: tuple[int, ...] | None = None  # in which it is seen; None is all
    is_crowd: bool = False

    def mask(self, index: int, size: tuple[int, int]) -> Mask:
        """(H, W) its pixels in a frame."""
        if self.frames is not None and index not in self.frames:
            return np.zeros(size, np.bool_)
        grid = np.moveaxis(np.mgrid[:size[0], :size[1]], 0, -1)  # (H, W, 2)
        away = np.abs(grid - self.center - index * np.array(self.step))
        reach = np.hypot(*np.moveaxis(away, -1, 0)) if self.kind == "disc" else away.max(axis=-1)
        pixels: Mask = reach <= self.side / 2
        return pixels


CLIPS = (
    (Thing("box", (22, 24), (2, 3), 26, (40, 40, 230)), Thing("disc", (40, 70), (-2, -2), 30, (230, 160, 30))),
    (Thing("disc", (24, 28), (3, 2), 28, (230, 160, 30)), Thing("box", (36, 68), (-3, 0), 30, (40, 40, 230))),
)


def write_clips(folder: Path, clips: Sequence[Sequence[Thing]] = CLIPS, *, frames: int = 4,
                size: tuple[int, int] = SIZE, names: Sequence[str] = CLASS_NAMES) -> Path:
    """Write frames and annotations; later things hide earlier ones. Returns the annotation file.

    Track ids count through all clips from 1 on, video ids from 1 on.
    """
    videos, annotations = [], []
    for video_id, things in enumerate(clips, start=1):
        file_names = [f"clip{video_id}/{index:05d}.png" for index in range(frames)]
        (folder / "JPEGImages" / f"clip{video_id}").mkdir(parents=True)
        segmentations: list[list[Any]] = [[] for _ in things]
        for index, name in enumerate(file_names):
            picture = np.full((*size, 3), 90, np.uint8)
            masks = [thing.mask(index, size) for thing in things]
            for row, (thing, mask) in enumerate(zip(things, masks, strict=True)):
                visible = mask & ~np.any([np.zeros(size, np.bool_), *masks[row + 1:]], axis=0)
                picture[visible] = thing.color
                segmentations[row].append(encode(visible) if visible.any() else None)
            cv2.imwrite(str(folder / "JPEGImages" / name), picture)
        videos.append({"id": video_id, "height": size[0], "width": size[1], "length": frames,
                       "file_names": file_names})
        annotations += [{"id": len(annotations) + row + 1, "video_id": video_id, "iscrowd": int(thing.is_crowd),
                         "category_id": CATEGORY_IDS[("box", "disc").index(thing.kind)], "segmentations": masks}
                        for row, (thing, masks) in enumerate(zip(things, segmentations, strict=True))]
    categories = [{"id": one, "name": name} for one, name in zip(CATEGORY_IDS, names, strict=True)]
    path = folder / "instances.json"
    path.write_text(json.dumps({"categories": categories, "videos": videos, "annotations": annotations}))
    return path


def write_recipe(path: Path, options: TrainingOptions, config: ModelConfig = CONFIG) -> Path:
    """A recipe file for this network."""
    model = {name: value for name, value in config.to_dict().items() if name != "class_names"}
    path.write_text(json.dumps({"model": model, "training": options.to_dict()}))
    return path


def read_clips(folder: Path, *arguments: Any, **changes: Any) -> tuple[Annotations, Path]:
    """`write_clips`, read again: annotations and the folder of the frames."""
    path = write_clips(folder, *arguments, **changes)
    return read_annotations(path), path.parent / "JPEGImages"


def same(a: PairBatch, b: PairBatch) -> bool:
    targets = zip(a.first_targets + a.second_targets, b.first_targets + b.second_targets, strict=True)
    return (torch.equal(a.first, b.first) and torch.equal(a.second, b.second) and torch.equal(a.gaps, b.gaps)
            and all(torch.equal(getattr(one, name), getattr(other, name))
                    for one, other in targets for name in vars(one)))
