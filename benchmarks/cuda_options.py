"""Effect of each option of ONNX Runtime's CUDA provider on this GPU, measured on a bundle's graphs alone.

    python benchmarks/cuda_options.py BUNDLE --json options.json

The bundle needs f16 graphs (`stmask-export --half`). Inputs and outputs stay on the GPU, so copies are not measured;
`stmask-bench` measures whole runs.
"""
from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
from report_file import ReportFile, new_report, report_options

from stmask_deploy.bench.statistics import percentiles
from stmask_deploy.bench.tables import format_table
from stmask_deploy.bundle import BundleDescription, read_description
from stmask_deploy.console import Command
from stmask_deploy.errors import DeviceError
from stmask_deploy.runtime.cuda_runtime import CudaRuntime, CudaStream, cuda_runtime
from stmask_deploy.runtime.loading import run_outputs
from stmask_deploy.runtime.onnx_subgraph import keep_outputs
from stmask_deploy.runtime.onnxruntime_providers import CUDA, choose_provider, provider_options, skipped_optimizers
from stmask_deploy.runtime.onnxruntime_recording import capture
from stmask_deploy.runtime.onnxruntime_session import specs

SCHEMA = "stmask-cuda-options/1"
MEMORY = "cuda"  # ONNX Runtime's name for it
WARMUP = 8  # runs that do not count


@dataclass(frozen=True)
class Row:
    """One graph with some options changed from those of a run."""

    name: str
    role: str = "frame"
    precision: str = "f16"
    is_recorded: bool = True
    changed: Mapping[str, str] = field(default_factory=dict)
    keeps_slices: bool = True  # instead of letting ONNX Runtime make unequal Splits of them
    rows: int = 16  # objects, for graphs with a dynamic number of them


PLAIN = {"prefer_nhwc": "0", "fuse_conv_bias": "0"}
ROWS = (
    Row("frame f32, not recorded", precision="f32", is_recorded=False),
    Row("frame f32", precision="f32"),
    Row("frame f32, TF32", precision="f32", changed={"use_tf32": "1"}),
    Row("frame f16, no TF32", changed={**PLAIN, "use_tf32": "0", "cudnn_conv_algo_search": "EXHAUSTIVE"}),
    Row("frame f16, channels first, kernels tried", changed={**PLAIN, "cudnn_conv_algo_search": "EXHAUSTIVE"}),
    Row("frame f16, bias apart, kernels tried",
        changed={"fuse_conv_bias": "0", "cudnn_conv_algo_search": "EXHAUSTIVE"}),
    Row("frame f16, bias apart", changed={"fuse_conv_bias": "0"}),
    Row("frame f16, kernels tried", changed={"cudnn_conv_algo_search": "EXHAUSTIVE"}),
    Row("frame f16, slices made Splits", keeps_slices=False),
    Row("frame f16, as it runs"),
    Row("frame f16, as it runs, not recorded", is_recorded=False),
    *(Row(f"{role} {precision}, as it runs", role, precision) for role in ("instances", "temporal")
      for precision in ("f32", "f16")),
)


@click.command(cls=Command, context_settings={"show_default": True})
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--runs", type=click.IntRange(min=1), default=60, help="Of each graph.")
@report_options
def main(bundle: Path, runs: int, report_file: ReportFile) -> None:
    """Measure the graphs of BUNDLE under various options of the CUDA provider."""
    import onnxruntime

    report = new_report(SCHEMA)
    description = read_description(bundle)
    choose_provider(onnxruntime, "cuda")
    found = []
    for row in (row for row in ROWS if row.role in description.roles):
        click.echo(f"measuring {row.name}", err=True)
        found.append({"row": row.name, "role": row.role, "precision": row.precision, **measure(row, bundle, runs)})
    report_file.write({**report, "runs": runs, "variant": description.model.variant, "rows": found})
    click.echo(table(found))


def measure(row: Row, bundle: Path, runs: int) -> dict[str, Any]:
    """Milliseconds per run after warm-up and seconds of the first run, or the reason why there are none."""
    import onnxruntime

    description = read_description(bundle)
    path = description.graph_path(bundle, row.role, "onnxruntime", row.precision)
    model = keep_outputs(path.read_bytes(), _outputs(description, row.role))
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    settings.enable_mem_pattern = False
    settings.add_free_dimension_override_by_name("N", row.rows)
    try:
        stream = CudaStream(_cuda_runtime(onnxruntime)) if row.is_recorded else None
        (provider, options), rest = provider_options(CUDA, row.precision, None, stream and stream.address)
        providers = [(provider, {**options, **row.changed}), rest]
        skipped = skipped_optimizers(CUDA) if row.keeps_slices else []
        session = onnxruntime.InferenceSession(model, settings, providers=providers, enable_fallback=0,
                                               disabled_optimizers=skipped)
        binding, _values = _bind(onnxruntime, session)
        start = time.perf_counter()
        session.run_with_iobinding(binding)
        first_s = time.perf_counter() - start
        run = _runner(onnxruntime, session, binding, stream)
        seconds = []
        for _ in range(WARMUP + runs):
            start = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - start)
    except Exception as error:  # the only base class that ONNX Runtime's exceptions share
        return {"not_available": " ".join(str(error).split())[:500]}
    return {"ms": {name: round(1000 * value, 3) for name, value in percentiles(seconds[WARMUP:]).items()},
            "first_s": round(first_s, 2)}


def _outputs(description: BundleDescription, role: str) -> tuple[str, ...]:
    if role != "frame":
        return tuple(description.tensor_names(role)[1])
    return run_outputs(description, [one for one in description.roles if one != "prototypes"])


def _cuda_runtime(ort: Any) -> CudaRuntime:
    runtime = cuda_runtime(ort.cuda_version)
    if runtime is None:
        raise DeviceError("CUDA's runtime library cannot be loaded")
    return runtime


def _runner(ort: Any, session: Any, binding: Any, stream: CudaStream | None) -> Callable[[], None]:
    """A function that runs the session and waits for its end; a replay if it has a stream of ours."""
    if stream is None:
        return lambda: session.run_with_iobinding(binding)
    graph = capture(ort, session, binding, stream)

    def replay() -> None:
        stream.launch(graph)
        stream.wait()

    return replay


def _bind(ort: Any, session: Any) -> tuple[Any, list[Any]]:
    """An I/O binding of random inputs and of outputs, all on the GPU, and the values that must be kept alive."""
    rng = np.random.default_rng(0)
    binding, values = session.io_binding(), []
    for name, spec in specs(session.get_inputs()).items():
        high = 200 if spec.dtype != "float32" else 1
        array = np.asarray(rng.uniform(0, high, spec.shape), spec.dtype)
        if name == "boxes":
            corners = array[:, :2] * np.float32(0.7)
            array = np.concatenate([corners, corners + np.float32(0.25)], axis=1)
        values.append(ort.OrtValue.ortvalue_from_numpy(array, MEMORY, 0))
        binding.bind_ortvalue_input(name, values[-1])
    for name, spec in specs(session.get_outputs()).items():
        values.append(ort.OrtValue.ortvalue_from_shape_and_type(list(spec.shape), np.dtype(spec.dtype).type, MEMORY, 0))
        binding.bind_ortvalue_output(name, values[-1])
    return binding, values


def table(rows: list[dict[str, Any]]) -> str:
    """A Markdown table of milliseconds per run and seconds of the first run."""
    cells = [("graph", "p50 / p90 ms", "first run s")]
    for row in rows:
        figures = row.get("ms")
        reason = row.get("not_available", "")[:80].replace("|", "/")
        spread = f"{figures['p50']:.2f} / {figures['p90']:.2f}" if figures else reason
        cells.append((row["row"], spread, f"{row['first_s']:.1f}" if figures else "-"))
    return format_table(cells, markdown=True)


if __name__ == "__main__":
    main()
