"""What the released implementation computed of a clip, and how our own values and tracks are held to it."""
from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from stmask_deploy.classes import YTVIS_2019
from stmask_deploy.config import Calibration, ModelConfig
from stmask_deploy.runtime.result import FrameResult

Array = NDArray[Any]

TENSOR_TOLERANCE = 1e-4  # share of a tensor's range
SCORE_TOLERANCE, BOX_TOLERANCE_PX, MASK_PIXELS = 1e-5, 0.01, 3
R50_DCN = ((1, 0), (1, 2), (2, 0), (2, 2), (2, 4), (3, 0), (3, 2))
CALIBRATIONS = {"ada": Calibration.ADAPTIVE, "ali": Calibration.ALIGNED}


@dataclass(frozen=True)
class Recording:
    """One recorded run."""

    info: Mapping[str, Any]  # of the JSON file: tracks, background bias, original size, ...
    values: Mapping[str, Array]  # of the npz file: tensors of the first frame and of the step to the second
    frames: Path  # folder of pictures
    proto_step: int  # every how many rows and columns of the prototypes were recorded
    channel_step: int  # every how many channels of the maps
    num_rois: int  # how many pooled boxes

    @property
    def config(self) -> ModelConfig:
        """What the loader should find in the checkpoint."""
        kind = CALIBRATIONS.get(self.info["config"].rpartition("_")[2], Calibration.NONE)
        return ModelConfig(class_names=YTVIS_2019, deformable_blocks=R50_DCN, class_calibration=kind)

    @property
    def run_options(self) -> dict[str, Any]:
        """Options of `stmask_deploy.load` that repeat the run."""
        options: dict[str, Any] = {} if self.info["cross_class_nms"] else {"nms": "per-class"}
        return options if self.info["temporal"] else {**options, "tracker": "frame"}


def read_recording(folder: Path, name: str, frames: Path) -> Recording:
    """The recording `name` in `folder`, of the pictures in `frames`."""
    info = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    with np.load(folder / f"{name}.npz") as file:
        values = dict(file)
    thin = name == "generated"
    proto_step, channel_step, num_rois = (8, 8, 2) if thin else (2, 1, 4)
    return Recording(info, values, frames, proto_step, channel_step, num_rois)


def errors(recording: Recording, found: Mapping[str, Array]) -> dict[str, float]:
    """Largest difference of every recorded tensor among `found`, as a share of its range."""
    shares = {}
    for name, value in found.items():
        want = recording.values[name]
        assert value.shape == want.shape, f"{name}: expected {want.shape}, got {value.shape}"
        assert np.isfinite(value).all(), name
        shares[name] = float(np.abs(value - want).max() / np.ptp(want))
    return shares


def misses(shares: Mapping[str, float]) -> dict[str, float]:
    return {name: share for name, share in shares.items() if not share <= TENSOR_TOLERANCE}


@dataclass(frozen=True)
class TrackAgreement:
    """How many rows (an instance in a frame) two runs have in common."""

    recorded: int
    found: int
    reproduced: int


def compare_tracks(recording: Recording, results: Iterable[FrameResult]) -> TrackAgreement:
    """Count recorded rows that the results reproduce, with ids equal up to one renaming for the whole clip."""
    frames = [_result_rows(result) for result in results]
    recorded = [_recorded_rows(rows, recording.info["original_size"]) for rows in recording.info["tracks"]]
    assert len(frames) == len(recorded)
    pairs = [(index, want["id"], have["id"]) for index, (wanted, had) in enumerate(zip(recorded, frames, strict=True))
             for want, have in itertools.product(wanted, had) if _same(want, have)]
    names: dict[int, int] = {}
    for (want, have), _ in Counter((want, have) for _, want, have in pairs).most_common():
        if want not in names and have not in names.values():
            names[want] = have
    hits = {(index, want) for index, want, have in pairs if names.get(want) == have}
    return TrackAgreement(sum(map(len, recorded)), sum(map(len, frames)), len(hits))


def _recorded_rows(rows: Sequence[Mapping[str, Any]], original_size: Sequence[int]) -> list[dict[str, Any]]:
    height, width = original_size
    # Recorded boxes are fractions of the padded 384x640 frame, of which the picture fills 360x640.
    scale = np.array([width, height * 384 / 360] * 2)
    return [{"id": row["id"], "class": row["label"], "score": row["score"],
             "box": np.clip(np.array(row["box"]) * scale, 0, [width, height] * 2),
             "mask": _decode(row["segmentation"])} for row in rows]


def _result_rows(result: FrameResult) -> list[dict[str, Any]]:
    return [{"id": int(result.ids[row]), "class": int(result.class_ids[row]), "score": float(result.scores[row]),
             "box": result.boxes_px[row], "mask": _decode(result.segmentations[row])}
            for row in range(len(result))]


def _decode(segmentation: Mapping[str, Any]) -> NDArray[np.bool_]:
    mask: NDArray[np.bool_] = coco_mask.decode(segmentation).astype(bool)
    return mask


def _same(want: Mapping[str, Any], have: Mapping[str, Any]) -> bool:
    return bool(want["class"] == have["class"] and abs(want["score"] - have["score"]) <= SCORE_TOLERANCE
                and np.abs(want["box"] - have["box"]).max() <= BOX_TOLERANCE_PX
                and np.count_nonzero(want["mask"] != have["mask"]) <= MASK_PIXELS)
