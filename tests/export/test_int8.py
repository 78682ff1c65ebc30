"""`stmask-export --int8` on a tiny network, as a whole."""
from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from clips import SIZE, write_clip
from tiny_networks import TINY

from stmask_deploy.bundle import read_description
from stmask_deploy.errors import InputError, StmaskError
from stmask_deploy.export.cli import main
from stmask_deploy.export.exporter import ExportOptions, check_export, export_checkpoint
from stmask_deploy.export.int8 import Int8Graphs, Int8Options, check_int8, quantize, write_int8
from stmask_deploy.export.int8_gate import Limits
from stmask_deploy.export.int8_layers import DEFORMABLE, layer_name
from stmask_deploy.export.int8_onnx import quantize_onnx
from stmask_deploy.export.int8_openvino import quantize_openvino, weight_of
from stmask_deploy.export.int8_recording import record
from stmask_deploy.export.verify_cli import main as verify_main
from stmask_deploy.models.checkpoint import Checkpoint
from stmask_deploy.pretrained import demo_annotations, demo_bundle, demo_clip
from stmask_deploy.runtime.loading import open_bundle
from stmask_deploy.runtime.openvino_sampling import expand_deformable
from stmask_deploy.runtime.video_source import VideoSource

WITH_WEIGHTS = ("Conv", "Gemm", "DeformConv", "ModulatedDeformConv")  # in these graphs products of matrices have none
OPEN = Limits(min_agreement=0)  # a network without training is a poor judge
needs_nncf = pytest.mark.skipif(find_spec("nncf") is None, reason="needs the extra int8")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "clip", 4)


@pytest.fixture(scope="module")
def traced(native_bundle: Path) -> Iterator[None]:
    """The network is not traced again: its graphs are those of another export."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stmask_deploy.export.exporter.export_graph",
                      lambda _model, _description, role, _options: onnx.load(native_bundle / f"{role}.onnx"))
        yield


@pytest.fixture(scope="module")
def bundle(tiny: Checkpoint, clip: Path, traced: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("int8") / "bundle"
    said: list[str] = []
    export_checkpoint(tiny, folder, ExportOptions(max_candidates=60, int8=Int8Options(clip, limits=OPEN)),
                      say=said.append)
    assert any(line.startswith("int8 on onnxruntime: ") for line in said)
    assert any("against f32: recall" in line for line in said)
    return folder


def test_the_bundle_says_that_it_has_int8_and_opens_in_it(bundle: Path) -> None:
    assert read_description(bundle).precisions == ("int8",)
    opened = open_bundle(bundle, precision="int8")
    assert "int8" in opened.frame.device
    assert opened.frame.metadata == open_bundle(bundle).frame.metadata == read_description(bundle)
    assert opened.temporal is not None
    kinds = [node.op_type for node in onnx.load(bundle / "frame_int8.onnx").graph.node]
    assert kinds.count("QuantizeLinear") > 20 and "BatchNormalization" not in kinds
    assert (bundle / "frame_int8.onnx").stat().st_size < (bundle / "frame.onnx").stat().st_size * 1.2


def test_int8_is_near_f32_and_not_f32(bundle: Path, clip: Path) -> None:
    picture = cv2.imread(str(clip / "000.png"))[None]
    old, new = (open_bundle(bundle, device="cpu", precision=precision).frame.run({"frame": picture}, ["fpn"])["fpn"]
                for precision in ("f32", "int8"))
    assert np.corrcoef(old.ravel(), new.ravel())[0, 1] > 0.9 and not np.array_equal(old, new)


def test_the_report_names_every_layer(bundle: Path, clip: Path) -> None:
    report = json.loads((bundle / "export_report.json").read_text())
    assert "frame_int8.onnx" in report["megabytes"]
    int8 = report["int8"]
    assert int8["calibration"]["source"] == clip.name and int8["calibration"]["frames"] == 4
    assert int8["limits"]["min_agreement"] == 0
    found = int8["backends"]["onnxruntime"]
    layers = {layer["layer"]: layer for layer in found["layers"]}
    assert layers["prediction_layers.0.centerness_layer.0"]["reason"] == "box and centerness outputs"
    assert layers["fpn.lat_layers.0"]["precision"] == "int8" and "reason" not in layers["fpn.lat_layers.0"]
    assert all(("reason" in layer) == (layer["precision"] == "float") for layer in layers.values())
    assert found["operators"]["QuantizeLinear"] > 20
    graphs = {role: [layer for layer in found["layers"] if layer["graph"] == role]
              for role in ("frame", "prototypes", "temporal")}
    assert sum(map(len, graphs.values())) == len(found["layers"])  # this network has no instance graph
    for role, listed in graphs.items():
        nodes = onnx.load(bundle / f"{role}.onnx").graph.node
        assert sum(layer["nodes"] for layer in listed) == sum(node.op_type in WITH_WEIGHTS for node in nodes), role
    assert {layer["precision"] for layer in graphs["prototypes"]} == {"int8"}
    assert 0 <= found["against_f32"]["agreement"]["recall"] <= 100


def test_layers_of_the_instance_graph_are_named() -> None:
    """It has no int8 graph, and runs leave out the frame graph's copies of its layers, of which the towers are int8."""
    recording = record(demo_bundle(), demo_clip(), 2, ["frame"])
    graphs = {"frame": onnx.load(demo_bundle() / "frame.onnx")}
    layers = quantize(recording, graphs, {}, read_description(demo_bundle()))["onnxruntime"].layers
    found = {role: {layer.name: layer for layer in layers if layer.graph == role} for role in ("frame", "instances")}
    nodes = onnx.load(demo_bundle() / "instances.onnx").graph.node
    assert len(found["instances"]) == sum(node.op_type == "Conv" for node in nodes) == 8
    assert all(layer.reason and "kept rows only" in layer.reason for layer in found["instances"].values())
    copies = [found["frame"][name] for name in found["instances"]]
    assert [layer.name for layer in copies if layer.reason is None] == [f"prediction_layers.0.{branch}_extra.0"
                                                                        for branch in ("mask", "track")]


def test_verification_opens_int8_and_compares_the_others(bundle: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    def verify(folder: Path) -> Result:
        return CliRunner().invoke(verify_main, [str(folder), str(tiny_checkpoint)])

    result = verify(bundle)
    assert result.exit_code == 0 and "onnxruntime int8: opened, not compared" in result.output
    assert result.output.endswith("what PyTorch computes (except onnxruntime int8)\n")
    damaged = tmp_path / "bundle"
    shutil.copytree(bundle, damaged)
    for content in (b"", (bundle / "temporal.onnx").read_bytes()[:5000]):
        (damaged / "temporal_int8.onnx").write_bytes(content)
        result = verify(damaged)
        assert result.exit_code == 2 and "temporal_int8.onnx" in result.output
    (damaged / "temporal_int8.onnx").unlink()
    assert "the bundle has no" in verify(damaged).output


def test_a_graph_too_far_from_f32_is_not_written(tiny: Checkpoint, clip: Path, traced: None, tmp_path: Path) -> None:
    options = ExportOptions(max_candidates=60, int8=Int8Options(clip, limits=Limits(min_agreement=100.1)))
    with pytest.raises(StmaskError, match=r"onnxruntime recall \d.* \(at least 100.1\).*nothing was written") as raised:
        export_checkpoint(tiny, tmp_path / "bundle", options)
    assert raised.value.exit_code == 1 and list(tmp_path.iterdir()) == []


def test_a_bundle_without_int8_says_what_makes_it(native_bundle: Path) -> None:
    with pytest.raises(InputError, match="no .*frame_int8.onnx .*stmask-export CHECKPOINT --int8 --calibration VIDEO"):
        open_bundle(native_bundle, precision="int8")
    with pytest.raises(InputError, match="no openvino/frame_int8.xml .*--openvino --int8 --calibration VIDEO"):
        open_bundle(native_bundle, "openvino", precision="int8")
    with pytest.raises(InputError, match="for the CPU"):
        open_bundle(native_bundle, precision="int8", device="cuda")


def write_annotations(path: Path, num_frames: int) -> None:
    """Of a clip of `SIZE` and of one object, which is in its first frame."""
    height, width = SIZE
    video = {"id": 1, "height": height, "width": width, "length": num_frames,
             "file_names": [f"clip/{index:03d}.png" for index in range(num_frames)]}
    shown = {"size": [height, width], "counts": [0, 100, height * width - 100]}
    track = {"id": 1, "video_id": 1, "category_id": 1, "segmentations": [shown, *[None] * (num_frames - 1)]}
    path.write_text(json.dumps({"categories": [{"id": 1, "name": "ant"}, {"id": 2, "name": "bee"},
                                               {"id": 3, "name": "cat"}],
                                "videos": [video], "annotations": [track]}))


def test_the_length_that_a_video_announces_is_no_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VideoSource, "_num_announced", lambda _source: 7)
    description = replace(read_description(demo_bundle()), openvino_weights=None)
    check_int8(Int8Options(demo_clip(), demo_annotations()), description)


def test_annotations_of_the_clip_are_taken(tiny: Checkpoint, clip: Path, tmp_path: Path) -> None:
    write_annotations(tmp_path / "clip.json", 4)
    options = ExportOptions(int8=Int8Options(clip, tmp_path / "clip.json"))
    assert check_export(tiny, tmp_path / "bundle", options).precisions == ()  # int8 is there when it has passed


@pytest.mark.parametrize(("arguments", "message"), [
    (["--int8"], "--int8 needs --calibration VIDEO"),
    (["--calibration", "{clip}"], "belong to --int8"),
    (["--int8-agreement", "50"], "belong to --int8"),
    (["--int8", "--calibration", "{clip}", "--int8-ap-loss", "2"], "needs --calibration-annotations"),
    (["--int8", "--calibration", "{clip}", "--calibration-frames", "0"], "0 is not in the range"),
    (["--int8", "--calibration", "nowhere.mp4"], "nowhere.mp4"),
    (["--int8", "--calibration", "{text}"], "text.mp4"),
    (["--int8", "--calibration", "{clip}", "--calibration-annotations", "{text}"], "text.mp4"),
    (["--int8", "--calibration", "{clip}/000.png"], "has 1 frame, at least 2 are needed"),
    (["--int8", "--calibration", "{short}"], "has 1 frame, at least 2 are needed"),
    (["--int8", "--calibration", "{clip}", "--calibration-annotations", "{longer}"],
     "has 5 frames of 100x72 pixels"),
])
def test_bad_input_ends_before_anything_is_traced(tiny_checkpoint: Path, clip: Path, tmp_path: Path,
                                                  arguments: list[str], message: str) -> None:
    text, short, longer = tmp_path / "text.mp4", tmp_path / "short", tmp_path / "longer.json"
    text.write_text("no video")
    write_clip(short, 1)
    write_annotations(longer, 5)
    words = [one.format(clip=clip, text=text, short=short, longer=longer) for one in arguments]
    result = CliRunner().invoke(main, [str(tiny_checkpoint), "-o", str(tmp_path / "new"), *words])
    assert result.exit_code == 2 and message in result.output and "Traceback" not in result.output
    assert "traced" not in result.output and not (tmp_path / "new").exists()


def test_without_nncf_openvino_names_the_extra(tiny: Checkpoint, clip: Path, tmp_path: Path,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(InputError, match=r"stmask-deploy\[int8\]"):
        export_checkpoint(tiny, tmp_path / "bundle", ExportOptions(openvino_weights="f32", int8=Int8Options(clip)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("weights", "bytes_each"), [("f16", 2), ("f32", 4)])
def test_what_stays_in_float_is_stored_as_in_the_other_graphs(native_bundle: Path, tmp_path: Path, weights: str,
                                                              bytes_each: int) -> None:
    import openvino

    values = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    x = openvino.opset13.parameter([1000], np.float32)
    model = openvino.Model([openvino.opset13.add(x, openvino.opset13.constant(values))], [x])
    (tmp_path / "openvino").mkdir()
    write_int8(tmp_path, replace(read_description(native_bundle), openvino_weights=weights),
               {"openvino": Int8Graphs({"temporal": model}, (), {})}, lambda role: {"role": role})
    size = (tmp_path / "openvino/temporal_int8.bin").stat().st_size
    assert 0 <= size - 1000 * bytes_each < 300
    assert '"temporal"' in (tmp_path / "openvino/temporal_int8.xml").read_text()


class LibraryError(Exception):
    """As those of ONNX Runtime and of nncf, which no class of Python's is a base of."""


@pytest.mark.parametrize("raised", [LibraryError("no"), RuntimeError("no"), KeyboardInterrupt(), SystemExit(143),
                                    OSError(28, "No space left on device")])
@pytest.mark.parametrize("library", ["onnxruntime.quantization.quantize_static",
                                     pytest.param("nncf.quantize", marks=needs_nncf)])
def test_what_libraries_raise(native_bundle: Path, monkeypatch: pytest.MonkeyPatch, library: str,
                              raised: BaseException) -> None:
    def fail(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr(library, fail)
    is_theirs = isinstance(raised, Exception) and not isinstance(raised, OSError)
    with pytest.raises(StmaskError if is_theirs else type(raised)) as caught:
        if library.startswith("nncf"):
            import openvino

            quantize_openvino(openvino.Core().read_model(native_bundle / "openvino/prototypes.xml"), "prototypes", [{}],
                              TINY)
        else:
            quantize_onnx(onnx.load(native_bundle / "prototypes.onnx"), "prototypes", [{}], TINY)
    assert "cannot quantise the prototypes graph: no" in str(caught.value) or caught.value is raised


@pytest.mark.slow
@needs_nncf
def test_openvino_computes_the_same_layers_in_int8_and_the_deformable_ones(tiny: Checkpoint, clip: Path, traced: None,
                                                                           tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    export_checkpoint(tiny, folder, ExportOptions(max_candidates=60, openvino_weights="f32",
                                                  int8=Int8Options(clip, limits=OPEN)))
    backends = json.loads((folder / "export_report.json").read_text())["int8"]["backends"]

    def layers(backend: str) -> set[tuple[str, str, int]]:
        return {(layer["layer"], layer["precision"], layer["nodes"]) for layer in backends[backend]["layers"]}

    deformed = {layer["layer"] for layer in backends["onnxruntime"]["layers"] if layer.get("reason") == DEFORMABLE}
    assert deformed >= {"backbone.layers.1.0.conv2", "backbone.layers.2.1.conv2",
                        "prediction_layers.0.conf_layer.0.conv_adaption"}
    assert layers("openvino") == {(name, "int8" if name in deformed else precision, nodes)
                                  for name, precision, nodes in layers("onnxruntime")}
    import openvino

    core = openvino.Core()
    told = {(layer["graph"], layer["layer"]): layer["precision"] for layer in backends["openvino"]["layers"]}
    for role in ("frame", "prototypes", "temporal"):
        exact, model = (core.read_model(folder / f"openvino/{role}{end}.xml") for end in ("", "_int8"))
        layer_of = {node.get_friendly_name(): layer_name(weight) for node in exact.get_ordered_ops()
                    if (weight := weight_of(node))}
        is_rounded = {node.get_friendly_name(): node.input_value(0).get_node().get_type_name() == "FakeQuantize"
                      for node in model.get_ordered_ops() if node.get_friendly_name() in layer_of}
        assert is_rounded == {name: told[role, layer] == "int8" for name, layer in layer_of.items()}
    model = core.read_model(folder / "openvino/frame_int8.xml")
    for node in model.get_ordered_ops():
        inputs = [value.get_node().get_type_name() for value in node.input_values()]
        if node.get_type_name() == "DeformableConvolution":
            places = [place for place, kind in enumerate(inputs) if kind == "FakeQuantize"]
            assert places == [0, 2]  # map and weights, not offsets and masks
        if node.get_type_name() in ("Softmax", "TopK", "Exp", "NormalizeL2", "ReduceL2", "Tanh", "Sigmoid"):
            assert "FakeQuantize" not in inputs
    count = [node.get_type_name() for node in model.get_ordered_ops()].count("DeformableConvolution")
    assert expand_deformable(model, only_int8=True) == count > 0  # as stored, they are recognised when opened
    opened = open_bundle(folder, "openvino", device="cpu", precision="int8")
    assert "int8 and " in opened.frame.device


def test_calibration_with_no_frames() -> None:
    with pytest.raises(InputError, match="calibration-frames must be at least 1, got 0"):
        Int8Options(demo_clip(), frames=0)
