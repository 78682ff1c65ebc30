"""Where the time of a frame graph goes, by kind of layer: what keeps it from the rate of plain convolutions.

    python benchmarks/layer_profile.py model_stmask --json profile.json

The frame graph is opened as for a run in which objects fill the frame (all prototypes; mask coefficients and embeddings
are left to the instance graph) and profiled by the library that runs it. Profiling itself costs time, so only shares
mean something. The ceiling is measured between the runs.
"""
from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
from report_file import ReportFile, new_report, report_options
from rows import parse_rows

from stmask_deploy.bench.arithmetic import count_flops
from stmask_deploy.bench.ceiling import CeilingJob, open_ceiling
from stmask_deploy.bench.tables import format_table
from stmask_deploy.bundle import read_description
from stmask_deploy.console import Command
from stmask_deploy.errors import InputError, StmaskError
from stmask_deploy.runtime.loading import check_file, run_outputs
from stmask_deploy.runtime.onnx_subgraph import keep_outputs
from stmask_deploy.runtime.opening import open_backend
from stmask_deploy.runtime.openvino_backend import shared_core
from stmask_deploy.synthetic.clips import render

SCHEMA = "stmask-layer-profile/1"
ROWS = "onnxruntime:f32,onnxruntime:int8,openvino:f32,openvino:bf16,openvino:int8"
# Kinds of layers, by the libraries' names; all others are named as the library names them.
KINDS = {
    "convolution": ("Convolution", "Conv", "FusedConv", "QLinearConv", "ConvTranspose", "Deconvolution"),
    "matrix product": ("MatMul", "FullyConnected", "FullyConnectedQuantizedLegacy", "Gemm", "FusedMatMul",
                       "MatMulInteger", "QGemm"),
    "deformable convolution": ("DeformableConvolution", "DeformConv"),
    "gathering of samples": ("Gather", "GatherND", "GatherElements", "GridSample"),
    "layout and type": ("Reorder", "Transpose", "Convert", "Cast", "ReorderInput", "ReorderOutput", "Reshape"),
    "quantisation": ("FakeQuantize", "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"),
    "joining and cutting": ("Concat", "Slice", "Pad", "Split", "VariadicSplit", "StridedSlice"),
    "element by element": ("Subgraph", "Eltwise", "Add", "Mul", "Multiply", "Relu", "Sigmoid", "QLinearAdd", "Sub",
                           "QLinearSigmoid"),
}
SHOWN, LEAST_SHOWN = 6, 0.005  # kinds in the table, and the least share of one


class Layer(NamedTuple):
    """One layer of one run."""

    kind: str  # see `KINDS`
    arithmetic: str  # f32, bf16, int8, ...; empty if the library does not say
    ms: float


def kind_of(name: str) -> str:
    """The kind of a layer that its library calls `name`."""
    return next((kind for kind, names in KINDS.items() if name in names), name)


class OpenVinoProfile:
    """The frame graph in OpenVINO, with the runtime's transformations."""

    def __init__(self, graph: Path, precision: str, threads: int, outputs: Sequence[str]) -> None:
        core = shared_core()
        core.set_property("CPU", {"PERF_COUNT": True})
        try:
            self._backend: Any = open_backend("openvino", graph, device="cpu", precision=precision, threads=threads,
                                              outputs=outputs)
        finally:
            core.set_property("CPU", {"PERF_COUNT": False})
        self._names = tuple(self._backend.outputs)

    def run(self, feeds: Mapping[str, Any]) -> list[Layer]:
        """The layers of one run."""
        self._backend.run(feeds)
        with self._backend._requests_for(self._names).borrowed() as request:  # the only one, so the one that ran
            return [Layer(kind_of(layer.node_type), layer.exec_type.rsplit("_", 1)[-1].replace("I8", "int8"),
                          1e3 * layer.real_time.total_seconds())
                    for layer in request.profiling_info if layer.real_time]


class OnnxRuntimeProfile:
    """The frame graph in ONNX Runtime."""

    def __init__(self, graph: Path, threads: int, outputs: Sequence[str]) -> None:
        import onnxruntime

        self._folder = tempfile.TemporaryDirectory()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 4
        options.enable_profiling, options.profile_file_prefix = True, str(Path(self._folder.name) / "profile")
        self._session = onnxruntime.InferenceSession(keep_outputs(graph.read_bytes(), outputs), options,
                                                     providers=["CPUExecutionProvider"])
        self._num_runs = 0

    def run(self, feeds: Mapping[str, Any]) -> None:
        """Run; the layers of all runs are in `layers`."""
        self._session.run(None, dict(feeds))
        self._num_runs += 1

    def layers(self) -> Iterator[list[Layer]]:
        """The layers of each run; ends the profile."""
        events = json.loads(Path(self._session.end_profiling()).read_text())
        self._folder.cleanup()
        nodes = [event for event in events if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")]
        per_run = len(nodes) // self._num_runs
        for start in range(0, per_run * self._num_runs, per_run):
            yield [Layer(kind_of(node["args"]["op_name"]), _arithmetic(node["args"]), node["dur"] / 1e3)
                   for node in nodes[start:start + per_run]]


def _arithmetic(arguments: Mapping[str, Any]) -> str:
    types = {name for one in arguments["input_type_shape"] for name in one}
    return "int8" if types & {"uint8", "int8"} else "f32" if "float" in types else ""


def shares(runs: Sequence[Sequence[Layer]]) -> dict[str, float]:
    """Kind, and arithmetic if known -> median over the runs of its share of a run's time, the largest first."""
    names = sorted({_name(layer) for run in runs for layer in run})
    table = np.zeros((len(runs), len(names)))
    for row, run in zip(table, runs, strict=True):
        for layer in run:
            row[names.index(_name(layer))] += layer.ms
    medians = np.median(table / table.sum(axis=1, keepdims=True), axis=0)
    return {names[i]: float(medians[i]) for i in np.argsort(-medians, kind="stable")}


def _name(layer: Layer) -> str:
    is_arithmetic = layer.kind in ("convolution", "matrix product", "deformable convolution")
    return f"{layer.kind}, {layer.arithmetic}" if is_arithmetic and layer.arithmetic else layer.kind


@click.command(cls=Command)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--rows", default=ROWS, show_default=True, help="BACKEND:PRECISION, separated by commas.")
@click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True)
@click.option("--runs", "num_runs", type=click.IntRange(min=1), default=15, show_default=True)
@report_options
def main(bundle: Path, rows: str, threads: int, num_runs: int, report_file: ReportFile) -> None:
    """Profile the frame graph of BUNDLE."""
    description = read_description(bundle)
    outputs = run_outputs(description, [role for role in description.roles if role != "prototypes"])
    feeds = {"frame": next(render("val", 7, 1, description.model.input_size).pictures())[None]}
    gflop = count_flops(description.graph_path(bundle, "frame", "onnxruntime").read_bytes(), outputs) / 1e9
    report: dict[str, Any] = {**new_report(SCHEMA), "threads": threads, "variant": description.model.variant,
                              "gflop": gflop, "rows": {}}
    for row in parse_rows(rows):
        backend, precision = row.backend, row.precision
        path = description.graph_path(bundle, "frame", backend, precision)
        try:
            check_file(path, backend, precision)
            profile: Any = (OpenVinoProfile(path, precision, threads, outputs) if backend == "openvino"
                            else OnnxRuntimeProfile(path, threads, outputs))
        except StmaskError as error:  # the machine or the bundle lacks something
            click.echo(f"{row} is left out: {error}", err=True)
            continue
        runs, rates = [], []
        with open_ceiling(CeilingJob(backend, precision, "cpu", threads)) as ceiling:
            profile.run(feeds)
            for _ in range(num_runs):
                runs.append(profile.run(feeds))
                rates.append(ceiling.facts["flops"] / float(np.median(ceiling.turn())) / 1e9)
        if backend == "onnxruntime":
            runs = list(profile.layers())[1:]
        ms = float(np.median([sum(layer.ms for layer in run) for run in runs]))
        report["rows"][str(row)] = {"ms": ms, "gflops": gflop / ms * 1e3, "gflops_of_ceiling": float(np.median(rates)),
                               "shares": shares(runs)}
        report_file.write(report)
    if not report["rows"]:
        raise InputError("no row could be measured; the reasons are above")
    click.echo(table(report["rows"]))


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """A Markdown table, one line per row: rate, and the kinds of layers that take the most time."""
    cells = [("row", "layers ms", "GFLOP/s", "of the ceiling", "where the time goes")]
    for name, row in rows.items():
        largest = [(kind, share) for kind, share in row["shares"].items() if share >= LEAST_SHOWN][:SHOWN]
        cells.append((name, f"{row['ms']:.0f}", f"{row['gflops']:.0f}",
                      f"{row['gflops'] / row['gflops_of_ceiling']:.0%}",
                      "; ".join(f"{kind} {share:.0%}" for kind, share in largest)))
    return format_table(cells, markdown=True)


if __name__ == "__main__":
    main()
