"""The same network run in other ways, and another network of similar arithmetic, side by side in one run.

    python benchmarks/peers.py model.pth --bundle model_stmask --json peers.json

Only graphs are measured, with arrays as inputs and outputs, since the code around them differs between peers. On a GPU,
maps that only other graphs read stay there. Every row runs in its own process, and the rows take turns.
"""
from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import click
from naive_graphs import export_raw_heads, export_sliced_correlation
from peer_subjects import NUM_ROWS, PeerJob, PeerTurn, open_peer, pipeline_outputs
from report_file import ReportFile, new_report, report_options
from rtmdet_peer import SIZE, export_rtmdet

from stmask_deploy.bench.alternation import back_and_forth
from stmask_deploy.bench.arithmetic import BundleArithmetic, count_flops
from stmask_deploy.bench.statistics import percentiles
from stmask_deploy.bench.tables import format_table
from stmask_deploy.bench.watched_graph import Call
from stmask_deploy.bench.worker import Worker
from stmask_deploy.bundle import INSTANCE_OUTPUTS, read_description
from stmask_deploy.console import Command
from stmask_deploy.errors import InputError
from stmask_deploy.export.exporter import ExportOptions, export_checkpoint
from stmask_deploy.models.checkpoint import Checkpoint, load_checkpoint
from stmask_deploy.pretrained import demo_bundle, demo_checkpoint

SCHEMA = "stmask-peers/1"
RAW, SLICED, RTMDET = "raw.onnx", "sliced.onnx", "rtmdet.onnx"
REFERENCE = "PyTorch eager, f32"  # the row that the others are compared with


@click.command(cls=Command, context_settings={"show_default": True})
@click.argument("checkpoint", required=False, type=click.Path(path_type=Path))
@click.option("--bundle", type=click.Path(path_type=Path), help="Exported from CHECKPOINT, with IR, for cuda "
              "with --half.  [default: made]")
@click.option("--only", multiple=True, metavar="TEXT", help="Rows whose name holds this; may be repeated.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu")
@click.option("--threads", type=click.IntRange(min=1), default=2, help="CPU threads.")
@click.option("--runs", type=click.IntRange(min=1), default=10, help="Of each graph in a turn.")
@click.option("--rounds", type=click.IntRange(min=1), default=3, help="Turns of each row.")
@report_options
def main(checkpoint: Path | None, bundle: Path | None, only: Sequence[str], device: str, threads: int, runs: int,
         rounds: int, report_file: ReportFile) -> None:
    """Measure CHECKPOINT (by default the demo model) alongside its peers."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        loaded = load_checkpoint(checkpoint or demo_checkpoint())
        bundle = _bundle(checkpoint, bundle, loaded, scratch, device).absolute()
        jobs = all_jobs((checkpoint or demo_checkpoint()).absolute(), bundle, scratch, device, threads, runs)
        chosen = [job for job in jobs if not only or any(text in job.name for text in only)]
        if not chosen:
            raise InputError(f"no row matches --only; there are: {'; '.join(job.name for job in jobs)}")
        flops = prepare(chosen, loaded, bundle, scratch)
        description = read_description(bundle)
        report: dict[str, Any] = {
            **new_report(SCHEMA), "device": device, "threads": threads, "runs": runs, "rounds": rounds,
            "variant": description.model.variant, "checkpoint": description.checkpoint_name,
            "rows": measure(chosen, rounds, flops)}
    report_file.write(report)
    click.echo(table(report["rows"]))


def _bundle(checkpoint: Path | None, bundle: Path | None, loaded: Checkpoint, scratch: Path, device: str) -> Path:
    """The checkpoint's bundle, exported if none is given.

    Raises:
        InputError: the given bundle was exported from another checkpoint.
    """
    if checkpoint is None and device == "cpu":  # the demo bundle has no f16 graphs
        bundle = bundle or demo_bundle()
    if bundle is None:
        click.echo("exporting", err=True)
        bundle = scratch / "bundle"
        export_checkpoint(loaded, bundle, ExportOptions(openvino_weights="f32") if device == "cpu"
                          else ExportOptions(half=True))
    elif read_description(bundle).checkpoint_sha256 != loaded.sha256:
        raise InputError(f"{bundle} was not exported from {loaded.name}; leave --bundle out to have one made")
    return bundle


def all_jobs(checkpoint: Path, bundle: Path, scratch: Path, device: str, threads: int, runs: int) -> list[PeerJob]:
    """All rows; `prepare` writes the files they read to `scratch`."""
    description = read_description(bundle)
    raw, sliced, rtmdet = (scratch / name for name in (RAW, SLICED, RTMDET))

    def job(name: str, kind: str, backend: str, precision: str, frame: Path | None = None,
            temporal: Path | None = None, channels_last: bool = False, device: str = device) -> PeerJob:
        return PeerJob(name, kind, backend, precision, bundle, checkpoint, frame, temporal, channels_last, device,
                       threads, runs)

    half = "bf16" if device == "cpu" else "f16"
    ours = [job("bundle, ONNX Runtime f32", "bundle", "onnxruntime", "f32")]
    if device == "cpu":
        ours += [job(f"bundle, OpenVINO {precision}", "bundle", "openvino", precision) for precision in ("f32", half)]
    else:
        ours += [job(f"bundle, ONNX Runtime {half}", "bundle", "onnxruntime", half)]
        ours += [job(f"bundle, ONNX Runtime {precision}, CUDA graphs", "bundle", "onnxruntime", precision,
                     device="cuda-graph") for precision in ("f32", half)]
    torch_rows = [job(f"PyTorch {backend}, {precision}{', channels last' if last else ''}", "torch", backend, precision,
                      channels_last=last)
                  for backend in ("eager", "compile") for precision in ("f32", half) for last in (False, True)]
    others = [job(f"RTMDet-Ins-{SIZE}, PyTorch eager f32", "rtmdet", "eager", "f32")]
    if device == "cuda":
        # ONNX files would copy all their maps between host and GPU, which would measure the bus rather than the graphs.
        torch_rows += [job(f"PyTorch compile, {precision}, CUDA graphs", "torch", "reduce-overhead", precision)
                       for precision in ("f32", half)]
        return torch_rows + ours + others
    naive = [job("naive: all anchors to the host, ONNX Runtime f32", "file", "onnxruntime", "f32", raw)]
    if description.model.temporal is not None:
        naive.append(job("naive: sliced correlation, ONNX Runtime f32", "file", "onnxruntime", "f32", None, sliced))
    ir = description.graph_path(bundle, "frame", "openvino")
    naive.append(job("naive: native deformable convolution, OpenVINO bf16", "file", "openvino", "bf16", ir))
    others += [job(f"RTMDet-Ins-{SIZE}, {backend} {precision}", "rtmdet", backend, precision, rtmdet)
               for backend, precision in (("onnxruntime", "f32"), ("openvino", "f32"), ("openvino", "bf16"))]
    return torch_rows + ours + naive + others


def prepare(jobs: Sequence[PeerJob], loaded: Checkpoint, bundle: Path, scratch: Path) -> dict[str, float]:
    """Export the comparison graphs that the rows need to `scratch`; returns GFLOP of the frame graphs by row name."""
    config = read_description(bundle).model
    raw, sliced, rtmdet = (scratch / name for name in (RAW, SLICED, RTMDET))
    model = loaded.build().eval()
    if any(job.kind == "torch" or job.frame == raw for job in jobs):
        export_raw_heads(model, config, raw)
    if any(job.temporal == sliced for job in jobs):
        export_sliced_correlation(model, config, sliced)
    if any(job.kind == "rtmdet" for job in jobs):
        with suppress(ImportError):  # the rows' processes report the reason
            export_rtmdet(rtmdet, config.padded_size)
    return _arithmetic(jobs, raw, rtmdet, bundle)


def _arithmetic(jobs: Sequence[PeerJob], raw: Path, rtmdet: Path, bundle: Path) -> dict[str, float]:
    import onnx

    description = read_description(bundle)

    def of_file(path: Path) -> float:
        model = onnx.load(path)
        return count_flops(model.SerializeToString(), [output.name for output in model.graph.output]) / 1e9

    calls = {Call("frame", pipeline_outputs(description), 0): 1}
    if "instances" in description.roles:
        calls[Call("instances", INSTANCE_OUTPUTS, NUM_ROWS)] = 1
    known = {"bundle": BundleArithmetic(bundle, description).flops(calls) / 1e9,
             **{kind: of_file(path) for kind, path in (("torch", raw), ("rtmdet", rtmdet)) if path.exists()}}
    return {job.name: known[kind] for job in jobs
            if (kind := "torch" if job.kind == "file" and job.frame is not None else job.kind) in known}


def measure(jobs: Sequence[PeerJob], rounds: int, flops: Mapping[str, float]) -> list[dict[str, Any]]:
    """Measure all rows in turns, as plain JSON."""
    turns: dict[str, list[PeerTurn]] = {job.name: [] for job in jobs}
    with ExitStack() as stack:
        workers = {}
        for job in jobs:
            click.echo(f"opening {job.name}", err=True)
            workers[job.name] = stack.enter_context(Worker(open_peer, job))
        for number, names in enumerate(back_and_forth(workers, rounds), 1):
            click.echo(f"round {number} of {rounds}", err=True)
            for name in names:
                answer = workers[name].turn()
                turns[name] += [] if answer is None else [answer]
        rows = []
        for name, worker in workers.items():
            row: dict[str, Any] = {"row": name}
            row |= {"not_available": worker.reason} if worker.reason else {
                "device": worker.facts["device"], "peak_mb": None if worker.peak_bytes is None
                else round(worker.peak_bytes / 1e6, 1), "gflop": flops.get(name), **_figures(turns[name])}
            rows.append(row)
    return rows


def _figures(turns: Sequence[PeerTurn]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for role in ("frame", "temporal"):
        seconds = [value for turn in turns for value in getattr(turn, role)]
        if seconds:
            found[f"{role}_ms"] = {name: round(1000 * value, 3) for name, value in percentiles(seconds).items()}
            found[f"{role}_turns"] = [[round(value, 7) for value in getattr(turn, role)] for turn in turns]
    return found


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table: milliseconds, and median speed relative to PyTorch."""
    reference = next((row for row in rows if row["row"] == REFERENCE and "frame_ms" in row), None)
    cells = [("row", "frame p50 / p90", "times PyTorch", "GFLOP/s", "temporal p50 / p90", "peak MB")]
    missing = []
    for row in rows:
        if "not_available" in row:
            missing.append(f"{row['row']}: not available: {row['not_available']}")
            continue
        frame = row.get("frame_ms")
        cells.append((row["row"], _spread(frame),
                      f"{reference['frame_ms']['p50'] / frame['p50']:.2f}" if reference and frame else "-",
                      f"{1000 * row['gflop'] / frame['p50']:.0f}" if row["gflop"] and frame else "-",
                      _spread(row.get("temporal_ms")), "-" if row["peak_mb"] is None else f"{row['peak_mb']:.0f}"))
    return "\n\n".join([format_table(cells, markdown=True), *missing])


def _spread(figures: Mapping[str, float] | None) -> str:
    return "-" if figures is None else f"{figures['p50']:.1f} / {figures['p90']:.1f}"


if __name__ == "__main__":
    main()
