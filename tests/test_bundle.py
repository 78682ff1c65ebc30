"""The description of a bundle: JSON and back, names and places of graphs, and folders that are no bundles."""
from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stmask_deploy.bundle import DESCRIPTION_FILE, SCHEMA, BundleDescription, has_own_graph, read_description
from stmask_deploy.config import Calibration, ModelConfig
from stmask_deploy.errors import InputError

DESCRIPTION = BundleDescription(
    export_id="00ff", model=ModelConfig(class_names=("cat", "dog"), mask_calibration=Calibration.ALIGNED),
    checkpoint_name="model.pth", checkpoint_sha256="ab" * 32, max_candidates=512, candidate_threshold=0.05, opset=20,
    dcn="native", tool_version="0.1.0", openvino_weights="f16", tolerances={"onnxruntime": 1e-6})
WITHOUT_TEMPORAL = replace(DESCRIPTION, model=replace(DESCRIPTION.model, temporal=None), openvino_weights=None)
LOCAL = replace(DESCRIPTION, model=ModelConfig(class_names=("cat", "dog")))


@pytest.mark.parametrize("description", [DESCRIPTION, WITHOUT_TEMPORAL, LOCAL])
def test_round_trip(description: BundleDescription, tmp_path: Path) -> None:
    (tmp_path / DESCRIPTION_FILE).write_text(description.to_json(), encoding="utf-8")
    assert read_description(tmp_path) == description
    (tmp_path / DESCRIPTION_FILE).write_text(description.to_json(), encoding="utf-8-sig")  # as some editors save it
    assert read_description(tmp_path) == description
    assert read_description(tmp_path) == description


def test_what_other_programs_read() -> None:
    values = json.loads(DESCRIPTION.to_json())
    assert values["schema"] == SCHEMA == "stmask-bundle/3"
    assert values["variant"] == "STMask R50 FCA FCB(ali: mask) TF"
    assert values["model"]["class_names"] == ["cat", "dog"] and values["tolerances"] == {"onnxruntime": 1e-6}
    assert (values["dcn"], values["correlation"], values["opset"]) == ("native", "function", 20)


def test_keys_of_later_versions_are_ignored() -> None:
    values = {**json.loads(DESCRIPTION.to_json()), "colour": "red"}
    assert BundleDescription.from_json(json.dumps(values), "x") == DESCRIPTION


def test_graphs() -> None:
    assert DESCRIPTION.roles == ("frame", "prototypes", "temporal")
    assert WITHOUT_TEMPORAL.roles == ("frame", "prototypes")
    assert LOCAL.roles == ("frame", "prototypes", "instances", "temporal")
    folder = Path("bundle")
    assert DESCRIPTION.graph_path(folder, "frame", "onnxruntime") == folder / "frame.onnx"
    assert DESCRIPTION.graph_path(folder, "temporal", "openvino") == folder / "openvino" / "temporal.xml"
    assert DESCRIPTION.graph_path(folder, "frame", "onnxruntime", "f16") == folder / "frame_f16.onnx"
    assert DESCRIPTION.graph_path(folder, "prototypes", "onnxruntime", "f16") == folder / "prototypes.onnx"
    assert DESCRIPTION.graph_path(folder, "prototypes", "onnxruntime", "int8") == folder / "prototypes_int8.onnx"
    # OpenVINO rounds the graph of f32 itself.
    assert DESCRIPTION.graph_path(folder, "frame", "openvino", "bf16") == folder / "openvino" / "frame.xml"


@pytest.mark.parametrize(("role", "backend", "precision", "expected"), [
    ("frame", "onnxruntime", "f16", True), ("frame", "onnxruntime", "int8", True), ("frame", "openvino", "int8", True),
    ("frame", "onnxruntime", "f32", False), ("frame", "onnxruntime", "bf16", False),
    ("frame", "openvino", "f16", False),  # it rounds the graph of f32 itself
    ("prototypes", "onnxruntime", "f16", False), ("prototypes", "openvino", "int8", True),
    ("instances", "onnxruntime", "f16", True), ("instances", "onnxruntime", "int8", False),
    ("temporal", "onnxruntime", "f16", True), ("temporal", "openvino", "int8", True),
])
def test_graphs_with_files_of_their_own(role: str, backend: str, precision: str, expected: bool) -> None:
    assert has_own_graph(role, backend, precision) is expected


def test_precisions_survive_the_file() -> None:
    half = replace(DESCRIPTION, precisions=("f16",))
    assert BundleDescription.from_json(half.to_json(), "x") == half
    values = json.loads(DESCRIPTION.to_json())
    del values["precisions"]  # as in bundles of earlier versions
    assert BundleDescription.from_json(json.dumps(values), "x") == DESCRIPTION


def test_tensor_names() -> None:
    inputs, outputs = DESCRIPTION.tensor_names("frame")
    assert inputs == ("frame",) and outputs[-4:] == ("prototypes", "p3", "fpn", "temporal")
    # Branches that are calibrated to the boxes have no instance graph, which alone reads the shared map.
    assert LOCAL.tensor_names("frame")[1] == (*outputs[:-2], "shared", *outputs[-2:])
    assert LOCAL.tensor_names("instances") == (("shared", "anchor_index"), ("mask_coeffs", "embeddings"))
    assert LOCAL.tensor_names("prototypes") == (("p3",), ("prototypes",))
    # Without a temporal graph nobody reads the maps.
    assert WITHOUT_TEMPORAL.tensor_names("frame")[1] == outputs[:-2]
    inputs, outputs = DESCRIPTION.tensor_names("temporal")
    assert inputs == ("prev_fpn", "fpn", "prev_temporal", "temporal", "boxes")
    assert outputs == ("box_deltas", "coeff_deltas")


def changed(**changes: Any) -> str:
    return json.dumps({**json.loads(DESCRIPTION.to_json()), **changes})


def without(key: str) -> str:
    return json.dumps({name: value for name, value in json.loads(DESCRIPTION.to_json()).items() if name != key})


@pytest.mark.parametrize("text, message", [
    ("", "not valid JSON"), ("{", "not valid JSON"), ("[]", "expected schema"), ('"text"', "found 'str'"),
    ("{}", "found None"), (changed(schema="stmask-bundle/1"), "found 'stmask-bundle/1'"),
    (without("export_id"), "export_id"), (without("model"), "model"), (changed(model={}), "class_names"),
    (changed(model=[1]), "expected a mapping"), (changed(model={"class_names": ["a"], "depths": "deep"}), "depths"),
    (changed(candidate_threshold="x"), "candidate_threshold has the wrong form"), (changed(opset=None), "opset"),
    (changed(candidate_threshold=float("nan")), "candidate_threshold"),
    (changed(max_candidates="512"), "max_candidates"),
    (changed(precisions="int8"), "precisions"), (changed(tolerances={"openvino": "x"}), "tolerances"),
    (changed(candidate_threshold=1.5), "in .0, 1."), ("[" * 100_000, "not valid JSON"),
])
def test_damaged(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        BundleDescription.from_json(text, "some/stmask.json")
    assert "some/stmask.json" in str(caught.value) and "export the checkpoint again" in str(caught.value)


@pytest.mark.parametrize("name", ["export_id", "checkpoint_name"])
def test_names_that_every_message_would_repeat(name: str) -> None:
    assert getattr(replace(DESCRIPTION, **{name: "x" * 255}), name) == "x" * 255  # as long as file names can be
    with pytest.raises(InputError, match="must have at most 255 characters"):
        replace(DESCRIPTION, **{name: "x" * 256})


@pytest.mark.parametrize("given", [{"max_candidates": 2.5}, {"max_candidates": True}, {"max_candidates": "512"},
                                   {"max_candidates": 0}, {"candidate_threshold": "0.1"}, {"candidate_threshold": 1.0}])
def test_settings_out_of_range(given: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="max_candidates must be at least 1 and candidate_threshold in"):
        replace(DESCRIPTION, **given)


def test_not_a_bundle(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist or is not a folder; make one with stmask-export"):
        read_description(tmp_path / "missing")
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is not a folder"):
        read_description(tmp_path / "file")
    with pytest.raises(InputError, match="cannot read stmask.json"):
        read_description(tmp_path)
    (tmp_path / DESCRIPTION_FILE).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot read stmask.json"):
        read_description(tmp_path)


def test_a_bundle_one_may_not_look_at(shut_folder: Path) -> None:
    with pytest.raises(InputError, match="does not exist or is not a folder"):
        read_description(shut_folder / "model")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "stmask.json")
    with pytest.raises(InputError, match="is not a bundle: stmask.json is not a file"):
        read_description(tmp_path)
