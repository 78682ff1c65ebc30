"""What is encoded by hand is what the package `onnx` reads."""
from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from stmask_deploy import onnx_fields
from stmask_deploy.onnx_writer import write_ints, write_model, write_node, write_tensor, write_value


def test_a_model() -> None:
    weight = np.arange(2 * 3 * 3 * 3, dtype=np.float32).reshape(2, 3, 3, 3)
    model = onnx.load_from_string(write_model(
        "small",
        [write_node("Conv", ["x", "w"], "y", write_ints("pads", [1, 0, 1, 300])), write_node("Relu", ["y"], "z")],
        [write_value("x", "float32", (1, 3, 4, 5))], [write_value("z", "float32", (1, 2, 4, 303))],
        [write_tensor("w", weight)]))
    onnx.checker.check_model(model, full_check=True)
    assert model.graph.name == "small" and [node.name for node in model.graph.node] == ["y", "z"]
    conv = model.graph.node[0]
    assert (conv.op_type, list(conv.input), list(conv.output)) == ("Conv", ["x", "w"], ["y"])
    assert [(one.name, list(one.ints)) for one in conv.attribute] == [("pads", [1, 0, 1, 300])]
    np.testing.assert_array_equal(numpy_helper.to_array(model.graph.initializer[0]), weight)


@pytest.mark.parametrize("dtype", onnx_fields.DATA_TYPES)
def test_types_and_shapes(dtype: str) -> None:
    for values in (np.arange(6).reshape(2, 3), np.zeros((0, 4)), np.array(7)):
        values = values.astype(dtype)
        tensor = onnx.TensorProto.FromString(write_tensor("one", values))
        np.testing.assert_array_equal(numpy_helper.to_array(tensor), values)
        assert numpy_helper.to_array(tensor).dtype == dtype and tensor.name == "one"
        value = onnx.ValueInfoProto.FromString(write_value("one", dtype, values.shape))
        kind = value.type.tensor_type
        assert onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type) == dtype
        assert tuple(dim.dim_value for dim in kind.shape.dim) == values.shape and value.name == "one"
        assert kind.HasField("shape")  # also of a single number


def test_numbers_of_fields() -> None:
    messages = {"MODEL": onnx.ModelProto, "OPSET": onnx.OperatorSetIdProto, "GRAPH": onnx.GraphProto,
                "NODE": onnx.NodeProto, "ATTRIBUTE": onnx.AttributeProto, "TENSOR": onnx.TensorProto,
                "VALUE": onnx.ValueInfoProto, "DIM": onnx.TensorShapeProto.Dimension, "SHAPE": onnx.TensorShapeProto}
    others = {"TYPE_TENSOR": (onnx.TypeProto, "tensor_type"), "TENSOR_TYPE_ELEM": (onnx.TypeProto.Tensor, "elem_type"),
              "TENSOR_TYPE_SHAPE": (onnx.TypeProto.Tensor, "shape"), "DIM_VALUE": (messages["DIM"], "dim_value"),
              "DIM_PARAM": (messages["DIM"], "dim_param"), "ATTRIBUTE_GRAPH": (messages["ATTRIBUTE"], "g")}
    numbers = {name: value for name, value in vars(onnx_fields).items() if name.isupper() and isinstance(value, int)}
    assert len(numbers) > 25
    for name, number in numbers.items():
        if name == "INTS":
            assert number == onnx.AttributeProto.INTS
            continue
        prefix, _, field = name.partition("_")
        message, field = others[name] if name in others else (messages[prefix], field.lower())
        assert message.DESCRIPTOR.fields_by_name[field].number == number, name
    for name, number in onnx_fields.DATA_TYPES.items():
        assert onnx.helper.np_dtype_to_tensor_dtype(np.dtype(name)) == number
