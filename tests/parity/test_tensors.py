"""The PyTorch network against recorded tensors of the released implementation."""
from __future__ import annotations

import pytest
from forward import torch_values
from recording import Recording, errors, misses

from stmask_deploy.models.checkpoint import Checkpoint


def test_variant_is_found(checkpoint: Checkpoint, generated: Recording) -> None:
    assert checkpoint.config == generated.config
    assert checkpoint.config.variant == "STMask R50-DCN FCA FCB(ada: class) TF"


@pytest.mark.slow
def test_every_recorded_tensor(checkpoint: Checkpoint, generated: Recording) -> None:
    shares = errors(generated, torch_values(checkpoint.build(), generated))
    assert set(shares) == set(generated.values) - {"anchor_index", "temporal_boxes"}
    assert not misses(shares)
