"""From pictures to the network's input."""
from __future__ import annotations

import pytest
import torch
from tiny_models import tiny_config

from stmask_deploy.models.frames import prepare_frames


def test_colour_normalisation_and_padding() -> None:
    config = tiny_config(input_size=(33, 40))
    frame = torch.zeros(2, 33, 40, 3, dtype=torch.uint8)
    frame[1, 5, 7] = torch.tensor([10, 20, 30], dtype=torch.uint8)  # blue, green, red
    found = prepare_frames(frame, config)
    assert found.shape == (2, 3, 64, 64) and found.dtype == torch.float32
    want = [(30 - 123.675) / 58.395, (20 - 116.28) / 57.12, (10 - 103.53) / 57.375]
    assert found[1, :, 5, 7].tolist() == pytest.approx(want)
    black = [-123.675 / 58.395, -116.28 / 57.12, -103.53 / 57.375]
    assert found[0, :, 32, 39].tolist() == pytest.approx(black)
    # Padding is zero after normalisation, which is not black.
    assert not found[:, :, 33:].any() and not found[:, :, :, 40:].any()


def test_no_padding() -> None:
    config = tiny_config(input_size=(32, 64), pixel_mean=(0.0, 0.0, 0.0), pixel_std=(1.0, 1.0, 1.0))
    frames = torch.randint(0, 256, (1, 32, 64, 3), dtype=torch.uint8)
    assert torch.equal(prepare_frames(frames, config), frames.flip(-1).permute(0, 3, 1, 2).float())
