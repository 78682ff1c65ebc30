from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_networks import TINY

from stmask_deploy.export.frame_graph import FrameGraph
from stmask_deploy.export.verify import frame_reference
from stmask_deploy.models.checkpoint import Checkpoint
from stmask_deploy.runtime.loading import open_bundle
from stmask_deploy.synthetic.clips import render


@pytest.mark.parametrize("rows", [1, 7, 60, TINY.num_anchors])
def test_rows_are_the_best_anchors_over_the_threshold(tiny: Checkpoint, native_bundle: object, rows: int) -> None:
    """Against a plain sort over all anchors."""
    threshold = 0.05
    graph = FrameGraph(tiny.build(), TINY, rows, threshold).eval()
    frame = next(render("val", 5, 1, TINY.input_size).pictures())[None]
    with torch.no_grad():
        boxes, scores, centerness, _, _, index, count, *_ = (value.numpy() for value in graph(torch.from_numpy(frame)))
    reference = frame_reference(tiny.build(), open_bundle(native_bundle).description, frame)  # type: ignore[arg-type]
    best = reference["class_scores"].max(axis=1)
    order = sorted(np.flatnonzero(best > threshold), key=lambda i: -best[i] * reference["centerness"][i])
    assert int(count) == len(order) > 1
    kept = min(rows, len(order))
    np.testing.assert_array_equal(index[:kept], order[:kept])
    np.testing.assert_allclose(boxes[:kept], reference["boxes"][order[:kept]], atol=1e-6)
    assert len(index) == rows == len(scores) == len(centerness)
