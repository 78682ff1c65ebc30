"""Similarity of detections and known objects: cosine of embeddings, overlap of masks and boxes, weighted sums."""
from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from stmask_deploy.geometry import box_iou
from stmask_deploy.tracking_config import TRACKERS
from stmask_deploy.types import Array, Instances, IntArray

from .masks import MASK_THRESHOLD

# Weights of the released pair score, whose maximum is 4: cosine (mapped to 0..1), mask IoU and box IoU.
RELEASED_COSINE_WEIGHT = 1.0
RELEASED_MASK_WEIGHT = 1.0
RELEASED_BOX_WEIGHT = 2.0
NEW_OBJECT = -1  # in an assignment: the detection belongs to no known object
# Pair score above which a detection matches a known object: under the weights above, a mapped cosine of 0.5, mask IoU
# 0.3 and box IoU 0.3.
NEW_OBJECT_SCORE = TRACKERS["released"]["new_object_score"]
# Length of vectors in whole numbers: no sum of the products of two of them reaches 2 ** 53, up to which f64 is exact.
UNIT = 2.0 ** 26
PAIRS_AT_ONCE = 512  # mask pairs whose overlap is counted at once: 1 MB for masks of a common size, to fit the cache


def cosine(a: Array, b: Array) -> Array:
    """(n, E) and (m, E) -> (n, m) cosine in [-1, 1]; 0 for zero vectors.

    Equal rows have equal cosines, to the bit and on every machine. A matrix product adds in an order of its own, which
    rounds equal rows differently; but here all its sums are whole numbers that f64 holds exactly.
    """
    cosines: Array = ((whole_units(a) @ whole_units(b).T) / UNIT ** 2).astype(np.float32)
    return cosines.clip(-1, 1)  # rounded parts may make a vector longer


def whole_units(vectors: Array) -> NDArray[np.float64]:
    """(n, E) vectors of length `UNIT` in whole numbers; zero vectors stay zero."""
    values = vectors.astype(np.float64)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    units: NDArray[np.float64] = np.rint(np.divide(UNIT * values, lengths, out=np.zeros_like(values),
                                                   where=lengths > 0))
    return units


def mask_iou(a: Array, b: Array) -> Array:
    """(n, Hm, Wm) and (m, Hm, Wm) soft masks, thresholded at 0.5 -> (n, m) IoU; 0 for two empty masks."""
    # Counts bits: a matrix product is slower, and its threads stall each other when the cores are busy.
    bits_a, bits_b = _pack(a), _pack(b)
    inter = np.zeros((len(a), len(b)), np.float32)
    step = max(1, PAIRS_AT_ONCE // max(len(b), 1))
    for start in range(0, len(a), step):
        inter[start:start + step] = _count(bits_a[start:start + step, None] & bits_b)
    union = _count(bits_a)[:, None] + _count(bits_b)[None, :] - inter
    iou: Array = np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)
    return iou


def mask_cover(masks: Array) -> Array:
    """(n, Hm, Wm) soft masks, best first, thresholded at 0.5 -> (n,) largest share of each inside a single better mask.

    0 for empty masks and for the first.
    """
    bits = _pack(masks)
    inter = np.zeros((len(masks), len(masks)), np.float32)
    for row in range(1, len(masks)):
        inter[row, :row] = _count(bits[:row] & bits[row])
    largest, areas = inter.max(axis=1, initial=0), _count(bits)
    cover: Array = np.divide(largest, areas, out=np.zeros_like(areas), where=areas > 0)
    return cover


def _pack(masks: Array) -> NDArray[np.uint64]:
    """(n, Hm, Wm) soft masks -> (n, words) bit masks of the cells above 0.5, 64 cells per word."""
    cut = (masks > MASK_THRESHOLD).reshape(len(masks), math.prod(masks.shape[1:]))
    packed = np.packbits(cut, axis=1)
    words = np.zeros((len(masks), -(-packed.shape[1] // 8)), np.uint64)
    words.view(np.uint8)[:, :packed.shape[1]] = packed
    return words


def _count(words: NDArray[np.uint64]) -> Array:
    """(..., words) -> (...) number of set bits."""
    counts: Array = np.bitwise_count(words).sum(axis=-1, dtype=np.uint32).astype(np.float32)  # exact below 2^24
    return counts


def released_scores(detections: Instances, objects: Instances) -> Array:
    """(n, m) score of each detection with each object: (cos + 1) / 2 + mask IoU + 2 * box IoU, in [0, 4]."""
    scores: Array = (RELEASED_COSINE_WEIGHT * (cosine(detections.embeddings, objects.embeddings) + 1) / 2
                     + RELEASED_MASK_WEIGHT * mask_iou(detections.masks, objects.masks)
                     + RELEASED_BOX_WEIGHT * box_iou(detections.boxes, objects.boxes))
    return scores


def paper_scores(detections: Instances, objects: Instances, alpha: float, beta: float) -> Array:
    """(n, m) score of each detection with each propagated object: alpha * cos + beta * mask IoU (paper eq. 15)."""
    scores: Array = (alpha * cosine(detections.embeddings, objects.embeddings)
                     + beta * mask_iou(detections.masks, objects.masks))
    return scores


def best_objects(scores: Array, threshold: float) -> IntArray:
    """(n, m) pair scores -> (n,) column of the best object, the first on ties; NEW_OBJECT if none is > `threshold`."""
    new = np.full((len(scores), 1), threshold, scores.dtype)
    best: IntArray = np.concatenate([new, scores], axis=1).argmax(axis=1) + NEW_OBJECT  # -1: columns count from 0 again
    return best
