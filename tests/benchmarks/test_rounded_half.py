"""Rounding where a GPU rounds: what was in f16 has its digits, what tensor cores read has those of TF32."""
from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from rounded_half import rounded

from stmask_deploy.export.half import to_half
from stmask_deploy.pretrained import demo_bundle

ROLES = ("frame", "instances", "temporal", "prototypes")
SMALLEST = float(np.finfo(np.float16).smallest_normal)  # below it f16 has fewer digits, which is not imitated


def run(model: onnx.ModelProto, feeds: dict[str, np.ndarray], more: list[str] | None = None) -> dict[str, np.ndarray]:
    """All outputs, and values inside the graph."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    for name in more or []:
        watched.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def feeds_of(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    feeds: dict[str, np.ndarray] = {}
    for info in model.graph.input:
        shape = [size.dim_value or 3 for size in info.type.tensor_type.shape.dim]
        kind = helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)
        feeds[info.name] = rng.uniform(0, 200 if kind != np.float32 else 1, shape).astype(kind)
    if "boxes" in feeds:
        feeds["boxes"] = np.sort(feeds["boxes"].reshape(-1, 2, 2), axis=1).reshape(-1, 4)
    return feeds


@pytest.mark.parametrize("role", ROLES)
def test_every_value_of_f16_has_its_digits(role: str) -> None:
    model = onnx.load(demo_bundle() / f"{role}.onnx")
    half = to_half(model)[0]
    inferred = onnx.shape_inference.infer_shapes(half).graph.value_info
    ours = rounded(half)
    made = {name for node in ours.graph.node for name in node.output}
    names = [info.name for info in inferred if info.type.tensor_type.elem_type == TensorProto.FLOAT16
             and info.name in made]
    assert len(names) >= 10
    assert all(one.data_type != TensorProto.FLOAT16 for one in ours.graph.initializer)
    found, plain = run(ours, feeds_of(model), names), run(model, feeds_of(model))
    for name in names:
        value = found[name]
        coarse = np.abs(value) >= SMALLEST
        assert np.array_equal(value[coarse], value[coarse].astype(np.float16)) and np.abs(value).max() < 1000
    maps = {"frame": ("fpn", "temporal"), "prototypes": ("prototypes",)}.get(role, tuple(plain))
    for name in maps:  # what is not sorted by scores
        error = np.abs(found[name] - plain[name]).max() / np.ptp(plain[name])
        assert 1e-5 < error < 0.02, name


def as_tf32(values: np.ndarray) -> np.ndarray:
    """The nearest numbers with 11 significant digits."""
    mantissa, exponent = np.frexp(values.astype(np.float64))
    return np.ldexp(np.round(mantissa * 2**11) / 2**11, exponent)


def test_a_layer_by_hand() -> None:
    """x -> Conv in f16 -> y, and x -> MatMul in f32 -> z: a single sum of products each, rounded where it should be."""
    rng = np.random.default_rng(1)
    x, w, m = (rng.standard_normal(shape).astype(np.float32) for shape in ((1, 5, 3, 4), (2, 5, 1, 1), (4, 6)))
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"]), helper.make_node("MatMul", ["x", "m"], ["z"])]
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
             for name, shape in (("x", x.shape), ("y", (1, 2, 3, 4)), ("z", (1, 5, 3, 6)))]
    graph = helper.make_graph(nodes, "g", infos[:1], infos[1:],
                              [numpy_helper.from_array(w, "w"), numpy_helper.from_array(m, "m")])
    half = to_half(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))[0]
    half.metadata_props.add(key="k", value="v")
    ours = rounded(half)
    found = run(ours, {"x": x})
    exact = np.einsum("nchw,oc->nohw", x.astype(np.float16).astype(np.float64), w[:, :, 0, 0].astype(np.float16))
    assert np.abs(found["y"] - exact).max() <= 2**-10 and not np.allclose(found["y"], exact, atol=1e-6)
    assert np.array_equal(found["y"], found["y"].astype(np.float16))
    assert np.allclose(found["z"], as_tf32(x) @ as_tf32(m), atol=1e-6)
    assert not np.allclose(found["z"], x.astype(np.float64) @ m, atol=1e-5)
    assert [(one.key, one.value) for one in ours.metadata_props] == [("k", "v")]
