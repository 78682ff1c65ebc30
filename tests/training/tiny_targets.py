"""Targets of a frame made of boxes alone, for the tests of matching and losses."""
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stmask_deploy.training.targets import FrameTargets

Box = tuple[float, float, float, float]  # xyxy, fractions of the frame


def boxes_of(rows: Sequence[Box]) -> Tensor:
    """(n, 4)."""
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)


def box_targets(rows: Sequence[Box], *, ignored: Sequence[Box] = (), class_ids: Sequence[int] | None = None,
                track_ids: Sequence[int] | None = None, cells: tuple[int, int] = (16, 24)) -> FrameTargets:
    """Objects that fill their boxes; classes 1 and track ids 1, 2, ... unless given."""
    masks = torch.zeros(len(rows), *cells)
    for mask, (left, top, right, bottom) in zip(masks, rows, strict=True):
        mask[round(top * cells[0]):round(bottom * cells[0]), round(left * cells[1]):round(right * cells[1])] = 1
    count = len(rows)
    return FrameTargets(
        boxes_of(rows), torch.tensor(class_ids if class_ids is not None else [1] * count, dtype=torch.int64),
        torch.tensor(track_ids if track_ids is not None else range(1, count + 1), dtype=torch.int64), masks,
        boxes_of(ignored))


def random_boxes(count: int, seed: int, smallest: float = 0.02) -> Tensor:
    """(n, 4) xyxy within the frame, with sides of at least `smallest`."""
    corners = torch.rand(count, 2, 2, generator=torch.Generator().manual_seed(seed)).sort(dim=1).values
    first = corners[:, 0] * (1 - smallest)
    return torch.cat([first, torch.maximum(corners[:, 1], first + smallest)], dim=1)
