from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from stmask_deploy.bench.ceiling import Ceiling, CeilingJob, open_ceiling
from stmask_deploy.bench.convolution_chain import ConvolutionChain


def test_the_first_run_of_a_turn_is_not_timed() -> None:
    runs: list[Mapping[str, Any]] = []
    assert len(Ceiling(ConvolutionChain(1, "f32"), runs.append).turn()) == len(runs) - 1 == 3


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_while_it_runs_no_file_is_left_that_a_killed_process_would_leave(backend: str, tmp_path: Path,
                                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with open_ceiling(CeilingJob(backend, "f32", "cpu", 1)) as ceiling:
        assert not list(tmp_path.iterdir())
        assert all(seconds > 0 for seconds in ceiling.turn())
