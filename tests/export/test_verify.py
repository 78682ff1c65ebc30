from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tiny_networks import changed_copy, edited_copy

from stmask_deploy.bundle import read_description
from stmask_deploy.export.verification import Check, Deviation
from stmask_deploy.export.verify import NUM_ROWS, _choice_check, _merge, _rows, verify_bundle
from stmask_deploy.models.checkpoint import Checkpoint
from stmask_deploy.pretrained import demo_bundle


@pytest.mark.parametrize(("role", "weight", "output"), [
    ("frame", "proto_net.10.weight", "frame/prototypes"),
    ("frame", "centerness_layer.0.bias", "frame/boxes"),
    ("prototypes", "proto_net.0.weight", "prototypes/prototypes"),
    ("temporal", "fc.weight", "temporal/box_deltas"),
])
def test_a_wrong_weight_is_found_and_named(native_bundle: Path, tiny: Checkpoint, tmp_path: Path, role: str,
                                           weight: str, output: str) -> None:
    folder = changed_copy(native_bundle, tmp_path / "bundle", role, 0.5, weight)
    verification = verify_bundle(folder, tiny.build())
    assert not verification.passed
    assert output in verification.summary()


def test_frames_of_ones_own(native_bundle: Path, tiny: Checkpoint) -> None:
    frames = [np.full((50, 40, 3), value, np.uint8) for value in (0, 90)]
    verification = verify_bundle(native_bundle, tiny.build(), frames=frames)
    assert verification.passed, verification.summary()
    assert {check.backend for check in verification.checks} == {"onnxruntime", "openvino"}


def test_rows_of_the_instance_graph_are_the_best_and_the_ends_of_all_levels(native_bundle: Path) -> None:
    description = read_description(native_bundle)
    model = description.model
    scores = np.zeros((model.num_anchors, 2), np.float32)
    best = np.arange(40, 40 + NUM_ROWS)
    scores[best, 1] = 0.9
    rows = _rows(description, {"class_scores": scores, "boxes": np.zeros((model.num_anchors, 4), np.float32)})
    ends, start = set(), 0
    for height, width in model.level_sizes:
        size = height * width * model.anchors_per_cell
        ends |= {start, start + size - model.anchors_per_cell}
        start += size
    assert rows.tolist() == sorted({*ends, *best.tolist()})


def test_half_weights_are_judged_by_their_own_tolerance(gridsample_bundle: Path) -> None:
    reached = read_description(gridsample_bundle).tolerances
    assert reached["onnxruntime"] < 1e-4 < reached["openvino"] < 5e-2


def test_of_several_deviations_of_an_output_the_worst_is_judged() -> None:
    small, large = Deviation("frame/fpn", (3,), 1e-6), Deviation("frame/fpn", (3,), 2e-6)
    wrong = Deviation("frame/fpn", (4,), float("nan"), "shape, expected (3,)")
    other = Deviation("frame/p3", (5,), 0.0)
    assert _merge([small, other, large, small], "openvino", 1e-4) == [
        Check("openvino", "frame/fpn", (3,), 2e-6, 1e-4), Check("openvino", "frame/p3", (5,), 0.0, 1e-4)]
    for order in ([wrong, large, small], [large, wrong, small]):
        [check] = _merge(order, "openvino", 1e-4)
        assert not check.passed and check.problem == "shape, expected (3,)"
    [check] = _merge([small, large], "openvino", 1.5e-6)
    assert not check.passed and check.error == 2e-6 and check.tolerance == 1.5e-6


@pytest.mark.parametrize("sign", [-1, 1])
def test_rows_that_belong_to_no_anchor(native_bundle: Path, tiny: Checkpoint, tmp_path: Path, sign: int) -> None:
    def shift(graph: onnx.GraphProto) -> None:
        for node in graph.node:
            for i, name in enumerate(node.output):
                if name == "anchor_index":
                    node.output[i] = "own_index"
            for i, name in enumerate(node.input):
                if name == "anchor_index":
                    node.input[i] = "own_index"
        graph.initializer.append(numpy_helper.from_array(np.array(sign * 10**6), "much"))
        graph.node.append(onnx.helper.make_node("Add", ["own_index", "much"], ["anchor_index"]))

    folder = edited_copy(native_bundle, tmp_path / "bundle", "frame.onnx", shift)
    verification = verify_bundle(folder, tiny.build())
    assert not verification.passed
    assert "frame/anchor_index (rows of no anchor, or one twice)" in verification.summary()


@pytest.mark.parametrize("errors", [(0.0, 0.0), (0.0, 0.5), (0.5, 0.0), (float("nan"), 0.5)])
def test_a_frame_that_fails_is_not_hidden_by_another(errors: tuple[float, float]) -> None:
    """Whatever the errors of those that pass, before it or after it."""
    bad, good = (Deviation("frame/boxes", (), error, problem)
                 for error, problem in zip(errors, ("rows of no anchor", ""), strict=True))
    for deviations in ([bad, good], [good, bad], [good, bad, good]):
        assert [check.problem for check in _merge(deviations, "onnxruntime", 1.0)] == ["rows of no anchor"]


@pytest.mark.parametrize(("chosen", "problem"), [
    ([0, 2], ""), ([0, 1], "better candidates left out: 1"), ([0, 3], "rows that are no candidates: 1")])
def test_where_there_is_a_row_for_every_candidate_none_may_be_left_out(chosen: list[int], problem: str) -> None:
    # Anchor 1 is within the tolerance of the threshold, and scores more than anchor 2.
    reference = {"class_scores": np.array([[0.9], [0.05005], [0.3], [0.01]], np.float32),
                 "centerness": np.array([1, 0.99, 0.01, 1], np.float32)}
    found = {"anchor_index": np.array(chosen), "num_candidates": np.array(2)}
    description = replace(read_description(demo_bundle()), candidate_threshold=0.05)
    assert _choice_check(reference, found, description, 1e-4).problem == problem
