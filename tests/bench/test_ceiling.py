from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stmask_deploy.bench.ceiling import Ceiling
from stmask_deploy.bench.convolution_chain import ConvolutionChain


def test_the_first_run_of_a_turn_is_not_timed() -> None:
    runs: list[Mapping[str, Any]] = []
    assert len(Ceiling(ConvolutionChain(1, "f32"), runs.append).turn()) == len(runs) - 1 == 3
