"""A part of a graph computes what the whole does, and nothing else."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.utils
import pytest
from onnx import TensorProto, helper
from tiny_bundles import frame_graph, picture, temporal_graph

from stmask_deploy.bundle import FRAME_OUTPUTS
from stmask_deploy.pretrained import demo_bundle
from stmask_deploy.runtime.onnx_subgraph import keep_outputs


@pytest.mark.parametrize("outputs", [("fpn",), ("num_candidates", "boxes"), ("prototypes", "fpn", "temporal"),
                                     FRAME_OUTPUTS])
def test_nodes_and_weights_are_those_that_onnx_itself_extracts(outputs: tuple[str, ...]) -> None:
    """`onnx.utils.extract_model` is the independent answer."""
    model = onnx.load(demo_bundle() / "frame.onnx")
    part = onnx.load_from_string(keep_outputs(model.SerializeToString(), outputs))
    onnx.checker.check_model(part)
    expected = onnx.utils.Extractor(model).extract_model(["frame"], list(outputs))
    assert [node.name for node in part.graph.node] == [node.name for node in expected.graph.node]
    assert {one.name for one in part.graph.initializer} == {one.name for one in expected.graph.initializer}
    assert {one.name for one in part.graph.output} == set(outputs)
    assert part.functions == model.functions and part.metadata_props == model.metadata_props
    assert (len(part.graph.node) < len(model.graph.node)) == (outputs != FRAME_OUTPUTS)


def test_all_inputs_stay() -> None:
    part = onnx.load_from_string(keep_outputs(temporal_graph().SerializeToString(), ["coeff_deltas"]))
    assert [one.name for one in part.graph.input] == [one.name for one in temporal_graph().graph.input]
    assert [node.op_type for node in part.graph.node] == ["Mul", "Identity"]


def test_the_part_computes_the_same() -> None:
    import onnxruntime

    whole = frame_graph(3).SerializeToString()
    feeds = {"frame": np.ascontiguousarray(picture(51, (40, 64))[None])}
    sessions = [onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
                for model in (whole, keep_outputs(whole, ["boxes"]))]
    assert np.array_equal(*(session.run(["boxes"], feeds)[0] for session in sessions))


def test_values_that_are_left_out_connect_no_nodes() -> None:
    """Omitted inputs and outputs all have the empty name."""
    values = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3]) for name in "xyz"}
    nodes = [helper.make_node("Dropout", ["x"], ["z", ""], "unused"),
             helper.make_node("Clip", ["x", "", "most"], ["y"], "used")]
    graph = helper.make_graph(nodes, "g", [values["x"]], [values["y"], values["z"]],
                              [helper.make_tensor("most", TensorProto.FLOAT, [], [1.0])])
    part = onnx.load_from_string(keep_outputs(helper.make_model(graph).SerializeToString(), ["y"]))
    assert [node.name for node in part.graph.node] == ["used"]


def test_a_node_with_several_graphs_is_refused() -> None:
    branch = helper.make_graph([helper.make_node("Identity", ["x"], ["z"])], "branch", [], [])
    node = helper.make_node("Choice", ["c"], ["y"], domain="other", branches=[branch, branch])
    graph = helper.make_graph([node], "g", [], [])
    with pytest.raises(ValueError, match="a graph of its own"):
        keep_outputs(helper.make_model(graph).SerializeToString(), ["y"])


def test_a_node_with_a_graph_of_its_own_is_refused() -> None:
    branch = helper.make_graph([helper.make_node("Identity", ["x"], ["z"])], "branch", [],
                               [helper.make_tensor_value_info("z", TensorProto.FLOAT, [1])])
    graph = helper.make_graph(
        [helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)], "g",
        [helper.make_tensor_value_info("c", TensorProto.BOOL, []),
         helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])])
    with pytest.raises(ValueError, match="a graph of its own"):
        keep_outputs(helper.make_model(graph).SerializeToString(), ["y"])


@pytest.mark.parametrize("damage", ["cut", "noise"])
def test_damaged_models_are_refused(tmp_path: Path, damage: str) -> None:
    whole = frame_graph(3).SerializeToString()
    with pytest.raises(ValueError, match="not a protobuf message"):
        keep_outputs(whole[:-3] if damage == "cut" else b"\xff" * 50, ["fpn"])
