"""Cost of graph variants in OpenVINO: deformable convolution in three forms, RoIAlign in two, with or without Winograd.

    python benchmarks/lowerings.py model_stmask --json lowerings.json
    python benchmarks/lowerings.py ada_stmask --beside r50_stmask

All forms of one bundle take turns in one process, along with a chain of plain convolutions as the ceiling. The form
without deformable convolution applies the same kernels at the regular positions: a different network with the same
arithmetic. That of a simpler network takes turns too with `--beside`.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from report_file import ReportFile, new_report, report_options
from turns import turns

from stmask_deploy.bench.ceiling import CeilingJob, open_ceiling
from stmask_deploy.bundle import read_description
from stmask_deploy.console import Command
from stmask_deploy.errors import DeviceError
from stmask_deploy.openvino_library import import_openvino
from stmask_deploy.runtime.loading import check_file, run_outputs
from stmask_deploy.runtime.openvino_backend import shared_core
from stmask_deploy.runtime.openvino_pooling import expand_roi_align
from stmask_deploy.runtime.openvino_sampling import KIND, expand_deformable
from stmask_deploy.runtime.openvino_tuning import tuning
from stmask_deploy.runtime.openvino_winograd import expand_convolutions
from stmask_deploy.synthetic.clips import render

SCHEMA = "stmask-lowerings/3"
NUM_ROWS = 20  # for the instance graph: detections that NMS keeps in a crowded frame
FORMS = ("plain", "kernel", "gathered")
COLUMNS = 10  # tile columns per block where a run does not use the algorithm


def without_deformation(model: Any) -> None:
    """Replace deformable convolutions by plain ones with the same weights, in place."""
    from openvino import opset13 as op
    from openvino.utils import replace_node

    for node in [node for node in model.get_ordered_ops() if node.get_type_name() == KIND]:
        x, _, weight = [port.get_source_output() for port in node.inputs()][:3]
        settings = node.get_attributes()
        replace_node(node, op.convolution(x, weight, settings["strides"], settings["pads_begin"],
                                          settings["pads_end"], settings["dilations"]))


class Forms:
    """The graphs of a bundle, compiled in every form.

    Args:
        folder: bundle with IR.
        threads: CPU threads.

    Raises:
        InputError: the bundle has no IR.
        DeviceError: (from `runs`) the CPU would compute in another precision.
    """

    def __init__(self, folder: Path, threads: int) -> None:
        self._openvino, self._core, self._folder, self._threads = import_openvino(), shared_core(), folder, threads
        self._description = read_description(folder)
        for role in self._description.roles:
            check_file(self._description.graph_path(folder, role, "openvino"), "openvino", "f32")

    @property
    def variant(self) -> str:
        """The network's variant."""
        return self._description.model.variant

    def runs(self, precision: str) -> Iterator[tuple[str, Callable[[], Any]]]:
        """Yield (name, function that runs one frame) for every form."""
        for form in FORMS:
            yield from self.frame_graph(form, precision)
        yield from self._small_graphs(precision)

    def frame_graph(self, form: str, precision: str) -> Iterator[tuple[str, Callable[[], Any]]]:
        """The same for the frame graph in one of the `FORMS`."""
        description = self._description
        frame = next(render("val", 7, 1, description.model.input_size).pictures())[None]
        model = self._core.read_model(description.graph_path(self._folder, "frame", "openvino"))
        if form == "plain":
            without_deformation(model)
        elif form == "gathered":
            expand_deformable(model)
        for is_whole in (True, False):
            part = model if is_whole else self._part(model)
            name = f"{form}, {'all outputs' if is_whole else 'outputs of a run'}"
            yield name, self._run(part, precision, {"frame": frame})
        yield from self._with_winograd(name, part, precision, {"frame": frame})

    def _small_graphs(self, precision: str) -> Iterator[tuple[str, Callable[[], Any]]]:
        description = self._description
        for role, feeds in self._feeds():
            model = self._core.read_model(description.graph_path(self._folder, role, "openvino"))
            if role == "temporal":
                yield "temporal graph, kernel of RoIAlign", self._run(model, precision, feeds)
                expand_roi_align(model)
            yield f"{role} graph", self._run(model, precision, feeds)
            yield from self._with_winograd(f"{role} graph", model, precision, feeds)
            if role == "prototypes":  # as it runs where objects fill most of the frame
                model = self._core.read_model(description.graph_path(self._folder, role, "openvino"))
                model.reshape({name: list(value.shape) for name, value in feeds.items()})
                yield from self._with_winograd(f"{role} graph of one size", model, precision, feeds)

    def _with_winograd(self, name: str, model: Any, precision: str,
                       feeds: dict[str, Any]) -> Iterator[tuple[str, Callable[[], Any]]]:
        """The form with Winograd convolutions, as a run uses at this precision on a CPU without matrix units."""
        tuned = tuning(self._core, precision)
        if expand_convolutions(model, precision, COLUMNS if tuned is None else tuned.columns):
            yield f"{name}, Winograd", self._run(model, precision, feeds)

    def _part(self, model: Any) -> Any:
        description = self._description
        names = set(run_outputs(description, [role for role in description.roles if role != "prototypes"]))
        return self._openvino.Model([port.node for port in model.outputs if names & port.names],
                                    model.get_parameters())

    def _feeds(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The roles of the small graphs, with inputs for each."""
        description = self._description
        rng = np.random.default_rng(0)
        for role in description.roles[1:]:
            model = self._core.read_model(description.graph_path(self._folder, role, "openvino"))
            feeds: dict[str, Any] = {}
            for port in model.inputs:
                shape = port.get_partial_shape()
                if port.any_name == "boxes":
                    corners = rng.uniform(0, 0.7, (10, 2))
                    feeds["boxes"] = np.concatenate([corners, corners + 0.25], axis=1).astype(np.float32)
                elif port.any_name == "p3":
                    size = description.model.level_sizes[0]
                    feeds["p3"] = rng.random((1, description.model.fpn_width, *size), dtype=np.float32)
                elif port.any_name == "anchor_index":
                    feeds["anchor_index"] = rng.integers(0, 1000, NUM_ROWS)
                else:
                    feeds[port.any_name] = rng.standard_normal(shape.to_shape()).astype(np.float32)
            yield role, feeds

    def _run(self, model: Any, precision: str, feeds: dict[str, Any]) -> Callable[[], Any]:
        compiled = self._core.compile_model(model, "CPU", {
            "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": self._threads,
            "INFERENCE_PRECISION_HINT": getattr(self._openvino.Type, precision)})
        used = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        if used != precision:
            raise DeviceError(f"this CPU computes in {used}, not in {precision}; leave --precision {precision} out")
        request = compiled.create_infer_request()
        return lambda: request.infer(feeds, share_inputs=True)


@click.command(cls=Command)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--beside", type=click.Path(path_type=Path), metavar="BUNDLE",
              help="Of another network, whose frame graph without deformation takes turns too.")
@click.option("--precision", "precisions", type=click.Choice(["f32", "bf16", "f16"]), multiple=True,
              help="Of OpenVINO; may be repeated.  [default: f32, and bf16 where the CPU has it]")
@click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True)
@click.option("--rounds", type=click.IntRange(min=1), default=15, show_default=True)
@report_options
def main(bundle: Path, beside: Path | None, precisions: Sequence[str], threads: int, rounds: int,
         report_file: ReportFile) -> None:
    """Measure the forms of the graphs of BUNDLE (exported with --openvino)."""
    forms = Forms(bundle, threads)
    other = None if beside is None else Forms(beside, threads)
    report: dict[str, Any] = {**new_report(SCHEMA), "threads": threads, "variant": forms.variant, "rows": {}}
    if not precisions:
        has_bf16 = "BF16" in shared_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        precisions = ("f32", "bf16") if has_bf16 else ("f32",)
    for precision in precisions:
        runs = dict(forms.runs(precision))
        if other is not None:
            runs |= {f"{other.variant}: {name}": run for name, run in other.frame_graph("plain", precision)}
        with open_ceiling(CeilingJob("openvino", precision, "cpu", threads)) as ceiling:
            chain: list[float] = []
            runs["ceiling"] = lambda turn=ceiling.turn, into=chain: into.extend(turn())  # type: ignore[misc]
            samples = turns(runs, rounds)
        medians = {name: round(float(np.median(values)), 2) for name, values in samples.items() if name != "ceiling"}
        gflops = ceiling.facts["flops"] / float(np.median(chain)) / 1e9
        base = medians["plain, all outputs"]
        report["rows"][precision] = {"gflops_of_ceiling": round(gflops, 1), "milliseconds": medians,
                                     "samples": {name: [round(one, 2) for one in values]
                                                 for name, values in samples.items() if name != "ceiling"}}
        report_file.write(report)
        click.echo(f"{forms.variant}, {precision}, {threads} threads; plain convolutions reach "
                   f"{gflops:.0f} GFLOP/s")
        for name, value in medians.items():
            click.echo(f"  {name:58s} {value:8.1f} ms  {value / base:5.2f}x")


if __name__ == "__main__":
    main()
