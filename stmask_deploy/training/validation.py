"""A network in training, evaluated as it would be deployed: by the runtime's pipeline, with PyTorch behind it."""
from __future__ import annotations

from pathlib import Path
from typing import Any

from .. import __version__
from ..bundle import BundleDescription
from ..config import ModelConfig
from ..datasets.annotations import Annotations
from ..evaluation.evaluate import Evaluation, evaluate
from ..models.stmask import STMask
from .pairs import read_frame

MAX_CANDIDATES = 512


def track_videos(model: STMask, config: ModelConfig, annotations: Annotations, frames_folder: Path,
                 device: str = "cpu", **options: Any) -> list[dict[str, Any]]:
    """The YouTube-VIS result list of `model` over every video of a dataset.

    Args:
        model: in evaluation mode.
        config: its configuration; its classes are those of the dataset, in the order of their ids.
        annotations: say which videos there are; what is annotated is not read.
        frames_folder: what their file names are relative to.
        device: where the network runs: cpu | cuda:N.
        options: fields of the runtime's `RunOptions`.
    """
    from stmask_deploy.export.torch_backend import torch_bundle
    from stmask_deploy.runtime.model import Model
    from stmask_deploy.runtime.options import RunOptions
    from stmask_deploy.runtime.timing import NoTimer
    from stmask_deploy.runtime.ytvis import YtvisCollector

    description = BundleDescription("in training", config, "in training", "", MAX_CANDIDATES, 0.05, 20, "native",
                                    __version__)
    runner = Model(torch_bundle(model, description, device), RunOptions(**options), NoTimer())
    category_ids = sorted(category.id for category in annotations.categories)
    entries = []
    for video in annotations.videos:
        runner.reset()
        collector = YtvisCollector(video.id)
        for name in video.file_names:
            collector.add(runner.step(read_frame(frames_folder / name, video)))
        entries += [{**entry, "category_id": category_ids[entry["category_id"] - 1]} for entry in collector.entries()]
    return entries


def evaluate_model(model: STMask, config: ModelConfig, annotations: Annotations, frames_folder: Path,
                   device: str = "cpu", **options: Any) -> Evaluation:
    """`track_videos`, compared with what is annotated."""
    return evaluate(annotations, track_videos(model, config, annotations, frames_folder, device, **options))
