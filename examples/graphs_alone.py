"""A bundle's graphs without this package, as a program in any language drives them: NumPy, OpenCV, ONNX Runtime.

    python examples/graphs_alone.py BUNDLE VIDEO

This is docs/driving-the-graphs.md with the tracker of the released models. The result is that of
`stmask_deploy.load(BUNDLE, tracker="released")`, which computes less for it.
"""
from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read as it is imported; otherwise it reports how it is used
import onnxruntime  # noqa: E402

MAPS = ["fpn", "temporal"]  # what the temporal graph reads, of this frame and of the previous one
ROWS = ["boxes", "class_scores", "centerness", "mask_coeffs", "embeddings", "anchor_index"]


@dataclass
class Thing:
    """A detection, or an object that is known."""

    box: np.ndarray  # (4,) x1, y1, x2, y2, fractions of the padded frame
    class_id: int  # from 1
    score: np.float32
    mask_coeffs: np.ndarray  # (P,) before tanh
    embedding: np.ndarray  # (E,) unit length
    mask: np.ndarray  # (Hm, Wm) in 0..1
    age: int = 0  # frames since it was last detected
    identity: int = -1


class Video:
    """One video in progress: the maps of the last frame, and every object seen so far."""

    def __init__(self, bundle: Path) -> None:
        model = json.loads((bundle / "stmask.json").read_text(encoding="utf-8"))["model"]
        self.class_names = model["class_names"]
        self.height, self.width = model["input_size"]
        self.frame_graph = onnxruntime.InferenceSession(bundle / "frame.onnx")
        self.temporal_graph = onnxruntime.InferenceSession(bundle / "temporal.onnx")
        self.maps: dict[str, np.ndarray] = {}
        self.objects: list[Thing] = []
        self.next_identity = 0

    def step(self, picture: np.ndarray) -> list[Thing]:
        """The objects to show in the next frame, (H0, W0, 3) uint8 BGR."""
        frame = cv2.resize(picture, (self.width, self.height), interpolation=cv2.INTER_LINEAR)
        names = [*ROWS, "num_candidates", "prototypes", *MAPS]
        outputs = dict(zip(names, self.frame_graph.run(names, {"frame": frame[None]}), strict=True))
        maps = {name: outputs[name] for name in MAPS}
        detected = detections(outputs)
        if self.objects:
            self.move(maps, outputs["prototypes"])
        self.maps = maps
        self.track(detected)
        return [known for known in self.objects
                if known.age <= 10 and known.score > 0.05 and (known.mask > 0.5).sum() > 1]

    def move(self, maps: dict[str, np.ndarray], prototypes: np.ndarray) -> None:
        """Move all objects from the previous frame to this one."""
        inputs = {**maps, **{f"prev_{name}": value for name, value in self.maps.items()},
                  "boxes": np.stack([known.box for known in self.objects])}
        box_deltas, coeff_deltas = self.temporal_graph.run(["box_deltas", "coeff_deltas"], inputs)
        for known, box_delta, coeff_delta in zip(self.objects, box_deltas, coeff_deltas, strict=True):
            size = known.box[2:] - known.box[:2]
            centre = (known.box[2:] + known.box[:2]) / 2 + np.float32(0.1) * box_delta[:2] * size
            size = size * np.exp(np.float32(0.2) * box_delta[2:])
            known.box = np.concatenate([centre - size / 2, centre + size / 2])
            known.mask_coeffs = known.mask_coeffs + coeff_delta
            known.mask = mask(prototypes, known.mask_coeffs, known.box)
            known.score *= np.float32(0.95)
            known.age += 1

    def track(self, detected: list[Thing]) -> None:
        """Give each detection to the object that it fits best, or make it a new one."""
        before, taken = list(self.objects), set()
        for found in detected:  # the best first, so that an object goes to the best of those that fit it
            scores = [pair_score(found, known) for known in before]
            row = int(np.argmax(scores)) if scores and max(scores) > 1.4 else None
            if row is None:
                found.identity = self.next_identity
                self.next_identity += 1
                self.objects.append(found)
            elif row not in taken:
                found.identity = before[row].identity
                self.objects[row] = found
                taken.add(row)


def detections(outputs: dict[str, np.ndarray]) -> list[Thing]:
    """The rows that NMS keeps, best first, with their masks."""
    count = min(int(outputs["num_candidates"]), len(outputs["boxes"]))
    boxes, class_scores, centerness, mask_coeffs, embeddings, anchors = (outputs[name][:count] for name in ROWS)
    scores = class_scores.max(axis=1, initial=0) * centerness
    best = np.lexsort((anchors, -scores))[:200]
    kept = [row for place, row in enumerate(best)
            if not any(box_iou(boxes[row], boxes[better]) > 0.5 for better in best[:place])]
    return [Thing(boxes[row], int(class_scores[row].argmax()) + 1, scores[row], mask_coeffs[row], embeddings[row],
                  mask(outputs["prototypes"], mask_coeffs[row], boxes[row])) for row in kept]


def mask(prototypes: np.ndarray, mask_coeffs: np.ndarray, box: np.ndarray) -> np.ndarray:
    """(Hm, Wm) in 0..1, 0 outside the box grown by one cell."""
    height, width, _ = prototypes.shape
    x1, x2 = sorted((box[0] * width, box[2] * width))
    y1, y2 = sorted((box[1] * height, box[3] * height))
    columns, rows = np.arange(width), np.arange(height)
    is_inside = (((rows >= y1 - 1) & (rows < y2 + 1))[:, None]) & (columns >= x1 - 1) & (columns < x2 + 1)
    return np.where(is_inside, 1 / (1 + np.exp(-(prototypes @ np.tanh(mask_coeffs)))), 0)


def pair_score(found: Thing, known: Thing) -> float:
    """How well a detection fits an object, 0 to 4."""
    cosine = found.embedding @ known.embedding
    return (cosine + 1) / 2 + mask_iou(found.mask > 0.5, known.mask > 0.5) + 2 * box_iou(found.box, known.box)


def mask_iou(one: np.ndarray, other: np.ndarray) -> float:
    union = (one | other).sum()
    return (one & other).sum() / union if union else 0.0


def box_iou(one: np.ndarray, other: np.ndarray) -> float:
    width, height = np.maximum(np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]), 0)
    union = np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]) - width * height
    return width * height / union if union > 0 else 0.0


def to_picture(soft: np.ndarray, model_size: tuple[int, int], picture_size: tuple[int, int]) -> np.ndarray:
    """A soft mask as (H0, W0) pixels of the picture."""
    for cells, resized, pixels in zip(soft.shape, model_size, picture_size, strict=True):
        content = cells * resized / (-(-resized // 32) * 32)  # cells that are not padding
        last = int(np.ceil(content)) - 1
        at = np.clip((np.arange(pixels) + 0.5) * content / pixels - 0.5, 0, last)
        low = at.astype(int)
        high, weight = np.minimum(low + 1, last), (at - low).astype(np.float32)[:, None]
        soft = (soft[low] * (1 - weight) + soft[high] * weight).T  # rows first, then columns
    return soft > 0.5


def main(bundle: str, path: str) -> None:
    video, source = Video(Path(bundle)), cv2.VideoCapture(path)
    index, (is_frame, picture) = 0, source.read()
    while is_frame:
        shown = video.step(picture)
        print(f"frame {index}: {len(shown)} objects")
        for known in shown:
            pixels = to_picture(known.mask, (video.height, video.width), picture.shape[:2])
            print(f"  {video.class_names[known.class_id - 1]} {known.identity}: score {known.score:.2f}, "
                  f"{pixels.sum()} pixels")
        index, (is_frame, picture) = index + 1, source.read()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
