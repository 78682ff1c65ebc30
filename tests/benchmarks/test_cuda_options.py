"""Rows, table, and the way of a measurement, walked on the CPU."""
from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cuda_options
import pytest
from click.testing import CliRunner
from cuda_options import ROWS, Row, main, measure, table
from cuda_runtime import FakeCudaRuntime
from recorded_graphs import CapturableSession

from stmask_deploy.errors import DeviceError
from stmask_deploy.pretrained import demo_bundle
from stmask_deploy.runtime.cuda_runtime import CudaRuntime
from stmask_deploy.runtime.onnxruntime_providers import CPU, CUDA, provider_options, skipped_optimizers


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> list[Mapping[str, str]]:
    """Sessions compute on the CPU; the options that they would have on a GPU."""
    import onnxruntime

    asked: list[Mapping[str, str]] = []
    session_class = onnxruntime.InferenceSession

    def open_session(model: Any, options: Any, providers: list[Any], **others: Any) -> Any:
        assert providers[0][0] == CUDA
        asked.append(providers[0][1])
        return CapturableSession(session_class(model, options, providers=[CPU], **others), library)

    library = FakeCudaRuntime()
    monkeypatch.setattr(onnxruntime, "InferenceSession", open_session)
    monkeypatch.setattr(cuda_options, "MEMORY", "cpu")
    monkeypatch.setattr(cuda_options, "cuda_runtime", lambda version: CudaRuntime(library))
    return asked


@pytest.mark.parametrize("role", ["frame", "instances", "temporal"])
def test_a_graph_is_measured_under_the_options_of_a_run(role: str, on_cpu: list[Mapping[str, str]]) -> None:
    found = measure(Row("any", role, "f32", changed={"use_tf32": "1"}, rows=3), demo_bundle(), runs=4)
    assert 0 < found["ms"]["p50"] <= found["ms"]["p90"] and found["first_s"] >= 0
    (_, options), _ = provider_options(CUDA, "f32", None, stream=1)
    assert on_cpu == [{**options, "use_tf32": "1"}]


def test_a_row_may_be_run_without_a_recording(on_cpu: list[Mapping[str, str]]) -> None:
    found = measure(Row("any", "temporal", "f32", is_recorded=False), demo_bundle(), runs=4)
    assert 0 < found["ms"]["p50"] and on_cpu == [provider_options(CUDA, "f32", None)[0][1]]


def test_slices_are_kept_as_in_a_run_unless_a_row_is_about_that(on_cpu: list[Mapping[str, str]],
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    skipped: list[list[str]] = []
    open_session = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *args, disabled_optimizers, **others: (
        skipped.append(disabled_optimizers) or open_session(*args, **others)))
    for keeps_slices in (True, False):
        assert "ms" in measure(Row("any", "temporal", "f32", keeps_slices=keeps_slices), demo_bundle(), runs=4)
    assert skipped == [skipped_optimizers(CUDA), []]
    assert sum(not row.keeps_slices for row in ROWS) == 1


def test_there_must_be_a_runtime(on_cpu: list[Mapping[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_options, "cuda_runtime", lambda version: None)
    found = measure(Row("any", "temporal", "f32"), demo_bundle(), runs=4)
    assert "CUDA's runtime library" in found["not_available"]


def test_the_first_runs_are_left_out(on_cpu: list[Mapping[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    seconds = iter([9.0, *[5.0] * cuda_options.WARMUP, *[0.25] * 4])
    ticks = itertools.count()

    def clock() -> float:
        now[0] += next(seconds) if next(ticks) % 2 else 0.0
        return now[0]

    monkeypatch.setattr(cuda_options.time, "perf_counter", clock)
    found = measure(Row("any", "temporal", "f32"), demo_bundle(), runs=4)
    assert found == {"ms": {"p50": 250.0, "p90": 250.0, "p99": 250.0}, "first_s": 9.0}


def test_what_cannot_run_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("CUDA failure 901: operation failed\nsomewhere")

    monkeypatch.setattr("onnxruntime.InferenceSession", fail)
    found = measure(Row("any", "temporal", "f32", is_recorded=False), demo_bundle(), runs=1)
    assert found == {"not_available": "CUDA failure 901: operation failed somewhere"}


def test_rows_have_names_of_their_own_and_change_options_that_there_are() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)
    known = {name for row in ROWS for name in dict(provider_options(CUDA, row.precision, None))[CUDA]}
    assert {name for row in ROWS for name in row.changed} <= known


def test_table() -> None:
    rows = [{"row": "frame f16", "ms": {"p50": 2.568, "p90": 2.577}, "first_s": 15.8},
            {"row": "instances f16", "not_available": "CUDA | failure 901"}]
    assert table(rows) == """\
| graph | p50 / p90 ms | first run s |
|---|---:|---:|
| frame f16 | 2.57 / 2.58 | 15.8 |
| instances f16 | CUDA / failure 901 | - |"""


def test_without_a_gpu_nothing_is_written(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, [str(demo_bundle()), "--json", str(tmp_path / "options.json")])
    assert done.exit_code == DeviceError.exit_code and "device cuda is not available" in done.output
    assert not list(tmp_path.iterdir())
