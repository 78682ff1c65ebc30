"""Accuracy of one checkpoint in every deployment: YouTube-VIS AP and identity switches, one row each.

    python benchmarks/accuracy.py shapes.pth --data synth/val --data synth/hard --json accuracy.json

Bundles are exported temporarily. `--rows trackers` compares trackers and non-maximum suppression on one backend,
`--rows gpu` is for machines with an NVIDIA GPU.
"""
from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import onnx
from dataset import open_dataset
from report_file import ReportFile, new_report, report_options
from rounded_half import rounded

from stmask_deploy.console import Command
from stmask_deploy.datasets.annotations import Annotations
from stmask_deploy.errors import DeviceError, InputError
from stmask_deploy.evaluation.evaluate import evaluate
from stmask_deploy.evaluation.evaluation import percent
from stmask_deploy.evaluation.track_dataset import track_dataset
from stmask_deploy.export.exporter import ExportOptions, export_checkpoint
from stmask_deploy.export.half import to_half
from stmask_deploy.export.int8 import Int8Options
from stmask_deploy.export.int8_gate import Limits
from stmask_deploy.export.lowering import Dcn
from stmask_deploy.export.torch_backend import torch_bundle
from stmask_deploy.models.checkpoint import Checkpoint, load_checkpoint
from stmask_deploy.runtime import winograd
from stmask_deploy.runtime.frame_tracker import FrameTracker
from stmask_deploy.runtime.model import Model, load
from stmask_deploy.runtime.options import RunOptions

SCHEMA = "stmask-accuracy/1"


@dataclass(frozen=True)
class Row:
    """One way to run the network."""

    name: str
    backend: str = "onnxruntime"  # pytorch | onnxruntime | openvino
    precision: str = "f32"
    device: str = "cpu"
    dcn: Dcn = Dcn.NATIVE
    weights: str = "f32"  # of the OpenVINO IR
    options: Mapping[str, Any] = field(default_factory=dict)  # for `RunOptions`
    is_rounded: bool = False  # f16 arithmetic of a GPU, emulated by `rounded_half`
    plain_masks: bool = False  # the frame tracker without the released code's second tanh
    winograd: bool = False  # for any number of channels: the demo network has too few to enable it by default


DEPLOYMENTS = (
    Row("PyTorch f32", "pytorch"),
    Row("ONNX Runtime f32"),
    Row("ONNX Runtime f32, gridsample", dcn=Dcn.GRIDSAMPLE),
    Row("OpenVINO f32", "openvino"),
    Row("OpenVINO f32, Winograd", "openvino", winograd=True),
    Row("OpenVINO f32, gridsample", "openvino", dcn=Dcn.GRIDSAMPLE),
    Row("OpenVINO f32, f16 weights", "openvino", weights="f16"),
    Row("OpenVINO bf16", "openvino", "bf16"),
    Row("OpenVINO bf16, Winograd", "openvino", "bf16", winograd=True),
    Row("OpenVINO bf16, gridsample", "openvino", "bf16", dcn=Dcn.GRIDSAMPLE),
    Row("f16 of a GPU, imitated on the CPU", is_rounded=True),
    Row("ONNX Runtime int8", precision="int8"),
    Row("OpenVINO int8", "openvino", "int8"),
)
PLAIN = {"embedding_momentum": 0.0, "max_cover": 1.0}  # no extensions to the paper
TRACKERS = (
    Row("what suits the network (default)"),
    Row("released tracker", options={"tracker": "released"}),
    Row("paper tracker, alpha 1, epsilon 0.7",
        options={"tracker": "paper", "alpha": 1.0, "beta": 1.0, "epsilon": 0.7, **PLAIN}),
    Row("paper tracker, alpha 2, epsilon 1.1",
        options={"tracker": "paper", "alpha": 2.0, "beta": 1.0, "epsilon": 1.1, **PLAIN}),
    Row("released tracker, new objects below 0.95", options={"tracker": "released", "new_object_score": 0.95}),
    Row("default, per-class NMS", options={"nms": "per-class"}),
    Row("default, bounded memory", options={"memory": "bounded"}),
    Row("frame tracker (temporal fusion off)", options={"tracker": "frame"}),
    Row("frame tracker, masks as trained", options={"tracker": "frame"}, plain_masks=True),
)
GPU = (
    Row("CUDA f32", device="cuda"),
    Row("CUDA f16", precision="f16", device="cuda"),
    Row("CUDA graphs f16", precision="f16", device="cuda-graph"),
)
ROWS = {"deployments": DEPLOYMENTS, "trackers": TRACKERS, "gpu": GPU}


@click.command(cls=Command)
@click.argument("checkpoint", type=click.Path(exists=True, path_type=Path))
@click.option("--data", "folders", multiple=True, required=True, type=click.Path(exists=True, path_type=Path),
              help="Folder with instances.json and JPEGImages; may be given again.")
@click.option("--rows", "kind", type=click.Choice(list(ROWS)), default="deployments", show_default=True)
@click.option("--only", multiple=True, help="Rows by name.  [default: all]")
@click.option("--max-videos", type=click.IntRange(min=1), help="The first videos of each dataset only.")
@click.option("--calibration", type=click.Path(exists=True, path_type=Path),
              help="Video that the rows of int8 are calibrated with; without one they are left out.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.")
@report_options
def main(checkpoint: Path, folders: tuple[Path, ...], kind: str, only: tuple[str, ...], max_videos: int | None,
         calibration: Path | None, threads: int | None, report_file: ReportFile) -> None:
    """Evaluate CHECKPOINT on every dataset, once per row."""
    rows = [row for row in ROWS[kind] if not only or row.name in only]
    unknown = set(only) - {row.name for row in rows}
    if unknown:
        raise click.BadParameter(f"no rows {', '.join(sorted(unknown))}; there are "
                                 f"{', '.join(row.name for row in ROWS[kind])}", param_hint="--only")
    loaded = load_checkpoint(checkpoint)
    datasets = {folder.name: open_dataset(folder, max_videos) for folder in folders}
    if len(datasets) < len(folders):
        raise click.BadParameter("folders of the same name would share their columns", param_hint="--data")
    report: dict[str, Any] = {**new_report(SCHEMA), "checkpoint": checkpoint.name, "sha256": loaded.sha256,
                              "variant": loaded.config.variant, "rows": []}
    click.echo(header(list(datasets)))
    with tempfile.TemporaryDirectory() as scratch:
        for row in rows:
            report["rows"].append(measure(row, loaded, datasets, Path(scratch), threads, calibration))
            report_file.write(report)
            click.echo(line(report["rows"][-1], list(datasets)))


def measure(row: Row, checkpoint: Checkpoint, datasets: Mapping[str, tuple[Annotations, Path]], scratch: Path,
            threads: int | None = None, calibration: Path | None = None) -> dict[str, Any]:
    """Scores of one row on every dataset, or the reason why it is not available."""
    with (winograd_everywhere() if row.winograd else nullcontext(),
          tanh_passes(1 if row.plain_masks else FrameTracker.tanh_passes)):
        try:
            model = open_model(row, checkpoint, scratch, threads, calibration)
        except (DeviceError, InputError) as error:
            return {"row": row.name, "not_available": str(error)}
        result: dict[str, Any] = {"row": row.name, "device": model.device, "tracking": str(model.options.tracking),
                                  "scores": {}}
        for name, (truth, frames) in datasets.items():
            start = time.perf_counter()
            entries = track_dataset(model, truth, frames)
            seconds = time.perf_counter() - start
            result["scores"][name] = {**evaluate(truth, entries).to_dict(), "seconds": round(seconds, 1)}
        return result


def open_model(row: Row, checkpoint: Checkpoint, scratch: Path, threads: int | None, calibration: Path | None) -> Model:
    """The model of a row; rows that share a bundle share one export in `scratch`."""
    if row.precision == "int8":
        return load(int8_bundle(row, checkpoint, scratch, calibration), row.backend, row.device, row.precision,
                    threads, **row.options)
    is_half = row.precision == "f16"
    kind = "_rounded" if row.is_rounded else "_half" if is_half else ""
    folder = scratch / f"{row.dcn.value}_{row.weights}{kind}"
    if not folder.exists():
        weights = row.weights if row.device == "cpu" and not row.is_rounded else None  # no IR if nothing reads it
        export_checkpoint(checkpoint, folder, ExportOptions(dcn=row.dcn, openvino_weights=weights, half=is_half))
        if row.is_rounded:
            for graph in folder.glob("*.onnx"):
                round_graph(graph)
    if row.backend == "pytorch":
        from stmask_deploy.bundle import read_description

        opened = torch_bundle(checkpoint.build(), read_description(folder))
        return Model(opened, RunOptions(**row.options))
    return load(folder, row.backend, row.device, row.precision, threads, **row.options)


def round_graph(path: Path) -> None:
    """Replace an f32 graph by its f16 version, emulated in f32."""
    model = onnx.load(path)
    half = to_half(model)[0]
    half.metadata_props.extend(model.metadata_props)
    onnx.save(rounded(half), path)


def int8_bundle(row: Row, checkpoint: Checkpoint, scratch: Path, calibration: Path | None) -> Path:
    """A bundle with int8 graphs for the row's backend, without an accuracy limit, since accuracy is measured here.

    Raises:
        InputError: there is no calibration video, or nncf is needed but not installed.
    """
    if calibration is None:
        raise InputError("int8 needs --calibration VIDEO")
    folder = scratch / f"int8_{row.backend}"
    options = ExportOptions(dcn=row.dcn, openvino_weights=row.weights if row.backend == "openvino" else None,
                            int8=Int8Options(calibration, limits=Limits(min_agreement=0)))
    if not folder.exists():
        export_checkpoint(checkpoint, folder, options)
    return folder


@contextmanager
def tanh_passes(count: int) -> Iterator[None]:
    """Temporarily set how many times the frame tracker applies tanh to mask coefficients."""
    before, FrameTracker.tanh_passes = FrameTracker.tanh_passes, count
    try:
        yield
    finally:
        FrameTracker.tanh_passes = before


@contextmanager
def winograd_everywhere() -> Iterator[None]:
    """Temporarily give models Winograd convolutions, however few channels and tiles their layers have.

    It has to last as long as a model runs, because OpenVINO's graph of the whole map is opened when it is first needed.
    In bf16 smaller windows of the prototype graph have none even so, since their size is not fixed.
    """
    before = winograd.FEWEST_CHANNELS, winograd.FEWEST_TILES
    winograd.FEWEST_CHANNELS, winograd.FEWEST_TILES = dict.fromkeys(winograd.FEWEST_CHANNELS, 1), 1
    try:
        yield
    finally:
        winograd.FEWEST_CHANNELS, winograd.FEWEST_TILES = before


def header(names: list[str]) -> str:
    """The first two lines of the table."""
    columns = [f"{name}: {score}" for name in names for score in ("AP", "AP50", "AP75", "J", "switches / 10 tracks")]
    return f"| | {' | '.join(columns)} |\n|---" + "|---:" * len(columns) + "|"


def line(row: Mapping[str, Any], names: list[str]) -> str:
    """One row as Markdown."""
    if "not_available" in row:
        return f"| {row['row']} | not available: {row['not_available']} |"
    return f"| {row['row']} | {' | '.join(cell for name in names for cell in _cells(row['scores'][name]))} |"


def _cells(scores: Mapping[str, Any]) -> Iterator[str]:
    for name in ("ap", "ap50", "ap75"):
        yield "-" if scores[name] is None else f"{scores[name]:.2f}"  # accuracy bounds are given in hundredths
    yield percent(scores["identities"]["j"])
    yield percent(scores["identities"]["switches_per_ten_tracks"])


if __name__ == "__main__":
    main()
