"""Evaluates a network in training as if it were deployed: with the runtime's pipeline on top of PyTorch."""
from __future__ import annotations

from pathlib import Path

from .. import __version__
from ..bundle import CANDIDATE_THRESHOLD, MAX_CANDIDATES, BundleDescription
from ..config import ModelConfig
from ..datasets.annotations import Annotations
from ..evaluation.evaluate import evaluate
from ..evaluation.evaluation import Evaluation
from ..evaluation.track_dataset import track_dataset
from ..models.stmask import STMask


def evaluate_model(model: STMask, config: ModelConfig, annotations: Annotations, frames_folder: Path,
                   device: str = "cpu") -> Evaluation:
    """Track every video of a dataset and compare the results with its annotations.

    Args:
        model: the network; it is set to evaluation mode.
        config: its configuration; its classes are those of the dataset, in the order of their ids.
        annotations: the ground truth.
        frames_folder: base folder of their file names.
        device: where the network runs: cpu | cuda:N.

    Raises:
        InputError: a frame cannot be read.
    """
    from stmask_deploy.export.torch_backend import torch_bundle
    from stmask_deploy.runtime.model import Model
    from stmask_deploy.runtime.options import RunOptions

    description = BundleDescription("in training", config, "in training", "", min(MAX_CANDIDATES, config.num_anchors),
                                    CANDIDATE_THRESHOLD, 20, "native", __version__)
    runner = Model(torch_bundle(model, description, device), RunOptions())
    return evaluate(annotations, track_dataset(runner, annotations, frames_folder))
