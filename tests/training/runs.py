"""Short runs, and what they leave in their folders."""
from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tiny_training import ALONE, CONFIG, OPTIONS
from torch import Tensor

from stmask_deploy.config import ModelConfig
from stmask_deploy.training.data import Data
from stmask_deploy.training.options import TrainingOptions
from stmask_deploy.training.run import Start, train
from stmask_deploy.training.weights import from_scratch


def new_run(options: TrainingOptions = OPTIONS, config: ModelConfig = CONFIG, is_trained: bool = False) -> Start:
    return Start(from_scratch(config), config, options, is_trained, ())


def run_in(folder: Path, data: Data, start: Start, **others: Any) -> Start:
    """Train in a new folder; returns `start`, whose model has learned."""
    folder.mkdir(exist_ok=True)
    train(start, data, others.pop("validation", None), folder, ALONE, **others)
    return start


def records(folder: Path, key: str) -> list[dict[str, Any]]:
    """The log's records that have this key."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if key in line]


def losses(folder: Path) -> list[tuple[int, dict[str, float]]]:
    return [(record["iteration"], record["losses"]) for record in records(folder, "losses")]


def tensors(value: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """All tensors in nested mappings and lists, with their places."""
    if isinstance(value, Tensor):
        yield prefix, value
    elif isinstance(value, dict | list):
        for key, one in value.items() if isinstance(value, dict) else enumerate(value):
            yield from tensors(one, f"{prefix}.{key}")


def assert_same_tensors(path: Path, other: Path) -> None:
    found, expected = (dict(tensors(torch.load(one, weights_only=True))) for one in (path, other))
    assert found.keys() == expected.keys() and len(found) > 50
    assert [name for name, value in found.items() if not torch.equal(value, expected[name])] == []
