from __future__ import annotations

import logging
from contextlib import nullcontext

import numpy as np
import onnx
import onnxsim
import pytest
import torch
from onnx import helper
from torch import Tensor, nn

from stmask_deploy.errors import StmaskError
from stmask_deploy.export.onnx_model import OPSETS, _same_rows, export_module


class Add(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + 2 * y.sum(dim=0)


def export(**settings: object) -> onnx.ModelProto:
    return export_module(Add().eval(), [torch.rand(3), torch.rand(2, 3)], ["x", "y"], ["z"], **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("opset", OPSETS)
def test_every_supported_opset_is_the_one_written(opset: int) -> None:
    assert [entry.version for entry in export(opset=opset).opset_import if entry.domain == ""] == [opset]


def test_names_and_dynamic_axes() -> None:
    model = export(dynamic={"y": {0: "rows"}})
    assert [info.name for info in model.graph.input] == ["x", "y"]
    assert model.graph.input[1].type.tensor_type.shape.dim[0].dim_param == "rows"
    assert model.graph.output[0].name == "z"


def test_messages_are_logged_again_afterwards() -> None:
    export()
    assert logging.root.manager.disable == logging.NOTSET


@pytest.mark.parametrize("asked", [KeyboardInterrupt(), SystemExit(143)], ids=repr)
def test_an_interrupt_is_no_failed_export(monkeypatch: pytest.MonkeyPatch, asked: BaseException) -> None:
    def fail(*_args: object, **_options: object) -> None:
        try:
            raise asked
        except BaseException as error:
            raise RuntimeError("Failed to export the model") from error

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(type(asked)):
        export()


def test_no_source_lines_of_the_exporting_machine_are_kept() -> None:
    assert b".py" not in export(simplify=False).SerializeToString()


def test_infinite_values_are_left_to_the_comparison_with_pytorch(recwarn: pytest.WarningsRecorder) -> None:
    class Huge(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([x * 3e38 * 3e38, -x * 3e38])

    export_module(Huge().eval(), [torch.rand(3) + 1], ["x"], ["y"])
    assert not [one for one in recwarn if issubclass(one.category, RuntimeWarning)]


def test_a_simplifier_that_changes_the_result_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(model: onnx.ModelProto, *_args: object, **_options: object) -> tuple[onnx.ModelProto, bool]:
        changed = onnx.ModelProto()
        changed.CopyFrom(model)
        node = changed.graph.node[-1]
        node.CopyFrom(helper.make_node("Sub", node.input, node.output))
        return changed, True

    monkeypatch.setattr(onnxsim, "simplify", broken)
    with pytest.raises(StmaskError, match="changed the output 'z'"):
        export()


class Scaled(nn.Module):
    """Values over a wide range, some next to nothing."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 1000


@pytest.mark.parametrize(("shift", "is_same"), [(0.04, True), (4.0, False)])
def test_a_simplifier_may_round_by_a_ten_thousandth_of_the_range(monkeypatch: pytest.MonkeyPatch, shift: float,
                                                                 is_same: bool) -> None:
    def rounding(model: onnx.ModelProto, *_args: object, **_options: object) -> tuple[onnx.ModelProto, bool]:
        changed = onnx.ModelProto()
        changed.CopyFrom(model)
        changed.graph.node[-1].output[0] = "exact"
        changed.graph.initializer.append(onnx.numpy_helper.from_array(np.float32([shift]), "shift"))
        changed.graph.node.append(helper.make_node("Add", ["exact", "shift"], ["z"]))
        return changed, True

    monkeypatch.setattr(onnxsim, "simplify", rounding)
    with nullcontext() if is_same else pytest.raises(StmaskError, match="changed the output 'z'"):
        export_module(Scaled().eval(), [torch.tensor([0.0, 1e-6, 1.0])], ["x"], ["z"])


def test_outputs_may_be_empty() -> None:
    model = export_module(Scaled().eval(), [torch.zeros(0, 3)], ["x"], ["z"])
    assert [size.dim_value for size in model.graph.output[0].type.tensor_type.shape.dim] == [0, 3]


def test_rows_of_equal_rank_may_swap_but_not_change() -> None:
    before = {"index": np.array([4, 7, 2]), "rows": np.array([[1.0], [2.0], [3.0]]), "map": np.arange(3.0)}
    after = {"index": np.array([7, 4, 2]), "rows": np.array([[2.0], [1.0], [3.0]]), "map": np.arange(3.0)}
    left, right = _same_rows(before, after, ["index", "rows"])
    for name in before:
        np.testing.assert_array_equal(left[name], right[name])
    with pytest.raises(StmaskError, match="changed the output 'index'"):
        _same_rows(before, {**after, "index": np.array([7, 5, 6])}, ["index", "rows"])
