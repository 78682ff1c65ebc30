"""Average precision against pycocotools' own evaluation of pictures, to which a video becomes a tall picture.

With the frames of a video below each other, intersections and unions of the picture are the sums over the frames.
"""
from __future__ import annotations

import numpy as np
import pytest
import slow_evaluation as slow
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from slow_evaluation import Thing
from test_slow_evaluation import CLASSES, FRAMES, as_annotations, as_entries, random_things

from stmask_deploy.evaluation.evaluate import evaluate

NUM_VIDEOS = 3
FAR = 1e5 ** 2
RANGES = {"all": [0, FAR], "small": [0, 128 ** 2], "medium": [128 ** 2, 256 ** 2], "large": [256 ** 2, FAR]}


def as_pictures(things: list[Thing], size: tuple[int, int]) -> COCO:
    pictures = COCO()
    pictures.dataset = {
        "images": [{"id": video, "height": FRAMES * size[0], "width": size[1]} for video in range(NUM_VIDEOS)],
        "categories": [{"id": category} for category in CLASSES],
        "annotations": [
            {"id": row, "image_id": thing.video, "category_id": thing.category, "iscrowd": int(thing.is_crowd),
             "score": thing.score, "area": thing.mean_area(),
             "segmentation": coco_mask.encode(np.asfortranarray(np.concatenate(list(thing.masks)), np.uint8))}
            for row, thing in enumerate(things, start=1)]}
    pictures.createIndex()
    return pictures


class PlainOverlap(COCOeval):  # type: ignore[misc]
    """With the IoU that the evaluation of YouTube-VIS has for crowds: that of any other track."""

    def computeIoU(self, image: int, category: int) -> object:  # noqa: N802
        crowds = [track for track in self._gts[image, category] if track["iscrowd"]]
        for track in crowds:
            track["iscrowd"] = 0
        ious = super().computeIoU(image, category)
        for track in crowds:
            track["iscrowd"] = 1
        return ious


def of_pycocotools(true: list[Thing], found: list[Thing], size: tuple[int, int]) -> dict[str, float | None]:
    evaluation = PlainOverlap(as_pictures(true, size), as_pictures(found, size), "segm")
    evaluation.params.areaRngLbl, evaluation.params.areaRng = list(RANGES), list(RANGES.values())
    evaluation.params.maxDets = [1, 10, 100]
    evaluation.evaluate()
    evaluation.accumulate()
    precision = evaluation.eval["precision"]  # (thresholds, recalls, classes, ranges, numbers of results), -1: none
    recall = evaluation.eval["recall"]  # (thresholds, classes, ranges, numbers of results)
    values = {"ap": precision[:, :, :, 0, 2], "ap50": precision[0, :, :, 0, 2], "ap75": precision[5, :, :, 0, 2],
              "ap_small": precision[:, :, :, 1, 2], "ap_medium": precision[:, :, :, 2, 2],
              "ap_large": precision[:, :, :, 3, 2], "ar1": recall[:, :, 0, 0], "ar10": recall[:, :, 0, 1]}
    return {name: 100 * float(value[value > -1].mean()) if (value > -1).any() else None
            for name, value in values.items()}


@pytest.mark.parametrize("seed", range(102, 126))
def test_same_as_pycocotools(seed: int) -> None:
    size, sides = ((300, 500), (90, 290)) if seed % 6 == 0 else ((12, 16), (3, 9))
    true, found = random_things(np.random.default_rng(seed), size, sides)
    result = evaluate(as_annotations(true, size, NUM_VIDEOS), as_entries(found))
    for name, value in of_pycocotools(true, found, size).items():
        assert getattr(result, name) == (value if value is None else pytest.approx(value, abs=1e-9)), name


def test_the_slow_twin_is_checked_too() -> None:
    true, found = random_things(np.random.default_rng(20), (12, 16), (3, 9))
    expected = slow.mean([slow.average_precision(true, found, category, slow.THRESHOLDS) for category in CLASSES])
    assert expected is not None and 0.1 < expected < 0.9  # neither nothing nor everything is right
    assert of_pycocotools(true, found, (12, 16))["ap"] == pytest.approx(100 * expected)
