"""The graphs for contrast compute what the good ones do."""
from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from naive_graphs import RawHeads, SlicedCorrelation, sliced_correlation

from stmask_deploy.bundle import FRAME_OUTPUTS
from stmask_deploy.export.frame_graph import FrameGraph
from stmask_deploy.export.temporal_graph import TemporalGraph, example_inputs
from stmask_deploy.models.checkpoint import load_checkpoint
from stmask_deploy.models.head import AnchorPredictions
from stmask_deploy.models.stmask import STMask
from stmask_deploy.ops import correlation
from stmask_deploy.pretrained import demo_checkpoint


@pytest.fixture(scope="module")
def model() -> STMask:
    return load_checkpoint(demo_checkpoint()).build().eval()


def test_shifted_products_are_the_correlation() -> None:
    prev, cur = torch.rand(2, 1, 6, 7, 9).unbind(0)
    torch.testing.assert_close(sliced_correlation(prev, cur, 5), correlation(prev, cur, 5))


def test_the_temporal_graph_gives_the_same(model: STMask) -> None:
    inputs = example_inputs(load_checkpoint(demo_checkpoint()).config)
    with torch.no_grad():
        for naive, good in zip(SlicedCorrelation(model)(*inputs), TemporalGraph(model)(*inputs), strict=True):
            torch.testing.assert_close(naive, good, rtol=1e-4, atol=1e-5)


def test_all_anchors_leave_the_raw_graph(model: STMask) -> None:
    config = load_checkpoint(demo_checkpoint()).config
    frame = torch.randint(0, 256, (1, *config.input_size, 3), dtype=torch.uint8)
    with torch.no_grad():
        raw = RawHeads(model, config)(frame)
        chosen = dict(zip(FRAME_OUTPUTS, FrameGraph(model, config, 5, 0.0)(frame), strict=True))
    names = [entry.name for entry in fields(AnchorPredictions)]
    heads = dict(zip(names, raw, strict=False))
    assert len(raw) == len(names) + 3  # prototypes and two maps
    assert all(value.shape[1] == config.num_anchors for value in heads.values())
    torch.testing.assert_close(heads["embeddings"][0, chosen["anchor_index"]], chosen["embeddings"])
    torch.testing.assert_close(raw[len(names)][0], chosen["prototypes"])
