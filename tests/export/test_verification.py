"""What passes, and what a verification says of itself."""
from __future__ import annotations

import math

import numpy as np

from stmask_deploy.export.verification import Check, Verification, spread

GOOD = Check("onnxruntime", "frame/boxes", (5, 4), 2e-5, 1e-4)
WRONG = Check("onnxruntime", "frame/centerness", (5,), 0.3, 1e-4)
MISSHAPEN = Check("openvino", "frame/boxes", (4, 4), math.nan, 1e-4, "shape, expected (5, 4)")


def test_errors_are_judged_by_the_range_of_the_values() -> None:
    assert spread(np.array([[3.0, 3.25], [3.1, 3.0]])) == 0.25 and spread(np.array([-5.0, 45.0])) == 50
    assert 0 < spread(np.full((2, 3), 7.0)) < 1e-5


def test_nan_and_emptiness_do_not_pass() -> None:
    assert not Check("b", "o", (1,), math.nan, 1e-4).passed
    assert not Verification(()).passed
    assert Check("b", "o", (1,), 1e-4, 1e-4).passed
    assert not Check("b", "o", (1,), 1.1e-4, 1e-4).passed
    assert not Check("b", "o", (1,), 0.0, 1e-4, "shape, expected (2,)").passed


def test_one_miss_fails_the_whole_and_every_miss_is_named() -> None:
    verification = Verification((GOOD, WRONG, MISSHAPEN))
    assert Verification((GOOD,)).passed and not verification.passed
    assert verification.summary() == ("2 of 3 outputs missed: onnxruntime frame/centerness (error 3.0e-01), "
                                      "openvino frame/boxes (shape, expected (5, 4))")
    assert Verification((GOOD,)).summary() == "all outputs match"
    assert Verification(()).summary() == "nothing was compared"


def test_lines_and_the_worst_of_each_backend() -> None:
    verification = Verification((GOOD, WRONG, Check("openvino", "temporal/box_deltas", (), 1.234e-6, 1e-4)))
    assert verification.reached() == {"onnxruntime": 0.3, "openvino": 1.23e-6}
    good, wrong, scalar = verification.lines()
    assert "5x4" in good and good.endswith("ok") and wrong.endswith("MISS") and "scalar" in scalar


def test_json_says_what_passed() -> None:
    stored = Verification((GOOD, WRONG)).to_dict()
    assert stored["passed"] is False
    assert [check["passed"] for check in stored["checks"]] == [True, False]
    assert stored["checks"][1]["output"] == "frame/centerness" and stored["checks"][0]["shape"] == (5, 4)
