"""Judging whether int8 is close enough to f32 on the calibration clip, by agreement and, with annotations, by AP."""
from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stmask_deploy.classes import plain_name
from stmask_deploy.config import ModelConfig
from stmask_deploy.datasets.annotations import Annotations, Video, read_annotations
from stmask_deploy.errors import InputError
from stmask_deploy.evaluation.agreement import Agreement
from stmask_deploy.evaluation.compare_runs import compare_runs
from stmask_deploy.evaluation.evaluate import SHOWN_SCORE, evaluate
from stmask_deploy.evaluation.run_file import RunFile
from stmask_deploy.evaluation.sources import videos_of
from stmask_deploy.wording import counted


@dataclass(frozen=True)
class Limits:
    """Limits on the accuracy lost to int8."""

    min_agreement: float = 90.0  # minimum recall and precision against f32, percent
    max_ap_loss: float = 1.0  # maximum loss of AP, percentage points; only with annotations


@dataclass(frozen=True)
class Judgement:
    """Comparison of int8 with f32 on one backend."""

    agreement: Agreement  # of the rows with at least `score`
    score: float
    f32_ap: float | None  # None without annotations
    ap: float | None  # of int8

    @property
    def ap_loss(self) -> float:
        """Loss of AP in percentage points; 0 without annotations."""
        return 0.0 if self.f32_ap is None else self.f32_ap - (self.ap or 0.0)

    @property
    def share(self) -> float:
        """The lower of recall and precision, percent."""
        return min(self.agreement.recall or 0.0, self.agreement.precision or 0.0)

    def passed(self, limits: Limits) -> bool:
        """Whether both figures are within the limits."""
        return self.share >= limits.min_agreement and self.ap_loss <= limits.max_ap_loss

    def line(self, limits: Limits) -> str:
        """The figures and their limits."""
        digits = 1 if self.passed(limits) else 2  # 89.96 is less than 90
        words = (f"recall {self.agreement.recall or 0.0:.{digits}f}, precision "
                 f"{self.agreement.precision or 0.0:.{digits}f} of the {counted(self.agreement.reference_rows, 'row')} "
                 f"of score {self.score:g} and more (at least {limits.min_agreement:g}), mask IoU "
                 f"{self.agreement.mean_iou or 0.0:.1f}")
        if self.f32_ap is None:
            return words
        return f"{words}; AP {self.ap or 0.0:.2f}, in f32 {self.f32_ap:.2f} (loss at most {limits.max_ap_loss:g})"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {"score": self.score, "agreement": self.agreement.to_dict(), "f32_ap": self.f32_ap, "ap": self.ap}


def judge(reference: RunFile, found: RunFile, annotations: Annotations | None) -> Judgement:
    """Compare an int8 run with the f32 run over the same clip.

    Only rows with at least `SHOWN_SCORE`, which users see, are judged: others appear and disappear with any rounding.
    If f32 has no row with that score, all rows are judged.

    Raises:
        InputError: f32 shows nothing at all or reaches no AP, or the annotations do not match the clip.
    """
    score = SHOWN_SCORE if any(row.score >= SHOWN_SCORE for rows in reference.frames for row in rows) else 0.0
    if not any(reference.frames):
        raise InputError(f"calibration: the model shows nothing on {reference.path}, so int8 cannot be judged; take a "
                         "video on which it finds objects")
    agreement = compare_runs(_shown(reference, score), _shown(found, score))
    before, after = (None if annotations is None else _ap(run, annotations) for run in (reference, found))
    if annotations is not None and not before:
        raise InputError(f"f32 reaches no AP on {annotations.path}, so no loss can be measured; give the annotations "
                         f"of {reference.path}")
    return Judgement(agreement, score, before, after)


def read_clip_annotations(path: Path, model: ModelConfig) -> Annotations:
    """The annotations of the calibration clip.

    Raises:
        InputError: they cannot be read, contain no objects, or have other classes than the network (case, spaces and
            hyphens of names do not matter).
    """
    annotations = read_annotations(path)
    names = tuple(category.name for category in annotations.categories)
    numbered = tuple(f"class_{number}" for number in range(1, len(model.class_names) + 1))
    is_named = tuple(map(plain_name, names)) == tuple(map(plain_name, model.class_names))
    if len(names) != len(model.class_names) or not (is_named or model.class_names == numbered):
        raise InputError(f"the classes of {path} ({', '.join(names[:5])}) are not those of the checkpoint "
                         f"({', '.join(model.class_names[:5])})")
    if not annotations.has_tracks:
        raise InputError(f"{path} has no annotations, only videos; AP cannot be measured with it")
    return annotations


def _shown(run: RunFile, score: float) -> RunFile:
    return replace(run, frames=tuple(tuple(row for row in rows if row.score >= score) for rows in run.frames))


def _ap(run: RunFile, annotations: Annotations) -> float | None:
    video = _video_of(run, annotations)
    entries = run.entries(video.id, [category.id for category in annotations.categories])
    return evaluate(annotations, entries, video_ids=[video.id], where=str(run.path)).ap


def _video_of(run: RunFile, annotations: Annotations) -> Video:
    return clip_video(annotations, run.path, (run.height, run.width), len(run.frames))


def clip_video(annotations: Annotations, clip: Path, size: tuple[int, int], num_frames: int | None) -> Video:
    """The video of `annotations` for `clip`: the only one, or the one named like the file or folder.

    Args:
        annotations: annotations in YouTube-VIS format.
        clip: the calibration clip.
        size: (height, width) of the clip in pixels.
        num_frames: number of frames of the clip, None if unknown.

    Raises:
        InputError: there is none or more than one, or its frame size or number differs.
    """
    videos = videos_of(clip.name, annotations)
    if len(videos) != 1:
        raise InputError(f"{clip.name!r} is the name of {len(videos) or 'none'} of the {len(annotations.videos)} "
                         f"videos of {annotations.path}; give annotations of the calibration clip")
    found = videos[0]
    if (found.height, found.width) != size or found.length != (num_frames or found.length):
        count = "frames" if num_frames is None else f"{num_frames}"
        raise InputError(f"video {found.name} of {annotations.path} has {counted(found.length, 'frame')} of "
                         f"{found.width}x{found.height} pixels, {clip} has {count} of "
                         f"{size[1]}x{size[0]}; give annotations of the calibration clip")
    return found
