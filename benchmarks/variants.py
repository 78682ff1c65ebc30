"""Export and verify many checkpoints, one row each: time, size, largest error on every backend.

    python benchmarks/variants.py model_a.pth model_b.pth --openvino --json results.json

Rows are printed as they are measured; bundles are not kept.
"""
from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

import click
from report_file import stamp

from stmask_deploy.atomic import atomic_file, check_writable
from stmask_deploy.console import Command
from stmask_deploy.errors import InputError
from stmask_deploy.export.exporter import ExportOptions, export_checkpoint
from stmask_deploy.export.lowering import Dcn
from stmask_deploy.models.checkpoint import load_checkpoint

HEADER = ("| checkpoint | variant | classes | export and verify | ONNX MB | largest error ONNX Runtime | OpenVINO |\n"
          "|---|---|---|---|---|---|---|")


def measure(path: Path, options: ExportOptions) -> dict[str, object]:
    """Export `path` to a temporary folder and return one row."""
    started = time.perf_counter()
    checkpoint = load_checkpoint(path)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "bundle"
        verification = export_checkpoint(checkpoint, folder, options)
        size = sum(graph.stat().st_size for graph in folder.glob("*.onnx")) / 1e6
    return {"checkpoint": path.stem, "variant": checkpoint.config.variant,
            "classes": checkpoint.config.num_classes - 1, "seconds": round(time.perf_counter() - started, 1),
            "megabytes": round(size, 1), "errors": verification.reached()}


def line(row: dict[str, object]) -> str:
    """The row in Markdown."""
    errors = row["errors"]
    assert isinstance(errors, dict)
    cells = [row["checkpoint"], row["variant"], row["classes"], f"{row['seconds']} s", row["megabytes"],
             *(f"{errors[name]:.1e}" if name in errors else "-" for name in ("onnxruntime", "openvino"))]
    return f"| {' | '.join(map(str, cells))} |"


@click.command(cls=Command)
@click.argument("checkpoints", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--openvino/--no-openvino", default=False)
@click.option("--dcn", type=click.Choice(["native", "gridsample"]), default="native")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Add the rows to this file.")
def main(checkpoints: tuple[Path, ...], openvino: bool, dcn: str, json_file: Path | None) -> None:
    """Export and verify CHECKPOINTS, one row each."""
    if json_file is not None:
        check_writable(json_file, overwrite=True)
    options = ExportOptions(dcn=Dcn(dcn), openvino_weights="f32" if openvino else None)
    known = json.loads(json_file.read_text()) if json_file is not None and json_file.exists() else None
    content = known or {"dcn": dcn, "rows": []}
    if content["dcn"] != dcn:
        raise InputError(f"{json_file} holds rows of --dcn {content['dcn']}; give another file")
    if not content["rows"]:
        click.echo(HEADER)
    for path in checkpoints:
        content["rows"].append({**measure(path, options), **stamp()})
        if json_file is not None:
            with atomic_file(json_file, overwrite=True) as file:
                file.write(json.dumps(content, indent=1).encode() + b"\n")
        click.echo(line(content["rows"][-1]))


if __name__ == "__main__":
    main()
