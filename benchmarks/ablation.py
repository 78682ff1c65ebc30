"""The paper's Tables 1, 2, 4 and 5 at small scale: every component trained and evaluated on the synthetic benchmark.

    stmask-synth synth
    python benchmarks/ablation.py --data synth --out runs/ablation

Each row is the demo recipe with other components and a smaller budget, trained with `stmask-train` once per seed. As
the paper starts from YOLACT trained on COCO, every row starts from the same trained trunk (backbone, FPN and prototype
network of the demo model); heads and TemporalNet are newly initialised. Completed runs are not repeated, so the command
can be interrupted, and processes with different `--seeds` can share one folder. The table shows the mean and half the
range over the seeds.
"""
from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import click
from accuracy import Row as Deployment
from accuracy import measure
from dataset import open_dataset
from report_file import stamp

from stmask_deploy.atomic import atomic_file
from stmask_deploy.errors import StmaskError
from stmask_deploy.models.checkpoint import Checkpoint, load_checkpoint
from stmask_deploy.models.variant import anchor_shapes
from stmask_deploy.pretrained import demo_checkpoint
from stmask_deploy.training.options import TrainingOptions
from stmask_deploy.training.recipe import Recipe, read_recipe
from stmask_deploy.training.snapshot import write_model
from stmask_deploy.training.weights import from_scratch

SQUARE = ((3, 3), (3, 3), (3, 3))
SMALL = ((3, 3), (3, 2), (2, 3))
LARGE = ((3, 3), (3, 5), (5, 3))
BRANCHES = ("class", "mask", "track")
TRUNK = ("backbone.", "fpn.", "proto_net.")
AVERAGED = 0.25  # time constant of the moving average of the weights, as a fraction of the iterations
SPLITS = ("val", "hard")
SCORES = ("ap", "ap50", "ap75")


@dataclass(frozen=True)
class Row:
    """A network, defined by its components."""

    name: str
    kernels: tuple[tuple[int, int], ...] = SQUARE  # anything else is feature calibration for anchors
    calibration: str = "none"  # to boxes: adaptive | aligned
    branches: tuple[str, ...] = ()  # the calibrated ones
    temporal: bool = False

    def model(self, base: Mapping[str, Any]) -> dict[str, Any]:
        """Fields of `ModelConfig`: those of the demo network, changed to this row's components."""
        changed = {**base, "kernel_shapes": self.kernels, "anchor_shapes": anchor_shapes(self.kernels)}
        for branch in BRANCHES:
            changed[f"{branch}_calibration"] = self.calibration if branch in self.branches else "none"
        if not self.temporal:
            changed["temporal"] = None
        # Tracking tuned to the demo model's embeddings may not suit a row's; the released rule depends least on them.
        changed.pop("tracking", None)
        return changed


def _subsets(kind: str, short: str) -> list[Row]:
    subsets = (BRANCHES, ("class", "mask"), ("class", "track"), ("mask", "track"))
    return [Row(f"+FCA +FCB({short}: {'+'.join(subset)})", LARGE, kind, subset) for subset in subsets]


# The paper's defaults: adaptive on all three branches, aligned on mask coefficients and embeddings (section 4.1).
ROWS = (
    Row("baseline"),
    Row("+FCA small", SMALL),
    Row("+FCA", LARGE),
    *_subsets("adaptive", "ada"),
    *_subsets("aligned", "ali"),
    Row("+FCB(ada)", calibration="adaptive", branches=BRANCHES),
    Row("+FCB(ali)", calibration="aligned", branches=("mask", "track")),
    Row("+TF", temporal=True),
    Row("+FCA +FCB(ada) +TF", LARGE, "adaptive", BRANCHES, True),
    Row("+FCA +FCB(ali) +TF", LARGE, "aligned", ("mask", "track"), True),
)
TABLES = {
    "Table 1: kernel shapes (FCA)": ("baseline", "+FCA small", "+FCA"),
    "Table 2: calibrated branches (FCB)": ("+FCA", *(row.name for row in ROWS[3:11])),
    "Table 4: components added one after the other": (
        "baseline", "+FCA", "+FCA +FCB(ada: class+mask+track)", "+FCA +FCB(ali: mask+track)", "+FCA +FCB(ada) +TF",
        "+FCA +FCB(ali) +TF"),
    "Table 5: components alone": ("baseline", "+FCA", "+FCB(ada)", "+FCB(ali)", "+TF"),
}


@click.command()
@click.option("--data", required=True, type=click.Path(exists=True, path_type=Path), help="Written by stmask-synth.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Takes the runs and the table.")
@click.option("--seeds", default="0,1", show_default=True, help="One run each.")
@click.option("--iterations", type=click.IntRange(min=1), default=1200, show_default=True)
@click.option("--pairs", type=click.IntRange(min=1), default=4, show_default=True, help="Frame pairs per step.")
@click.option("--trunk", "trunk_file", type=click.Path(exists=True, path_type=Path), default=demo_checkpoint(),
              help="Checkpoint of the demo recipe's network to start from.  [default: the demo model]")
@click.option("--only", multiple=True, type=click.Choice([row.name for row in ROWS]), help="Rows.  [default: all]")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.")
def main(data: Path, out: Path, seeds: str, iterations: int, pairs: int, trunk_file: Path, only: tuple[str, ...],
         threads: int | None) -> None:
    """Train and evaluate all rows; the table is rewritten after each."""
    out.mkdir(parents=True, exist_ok=True)
    trunk = load_checkpoint(trunk_file)
    budget = {"iterations": iterations, "pairs_per_batch": pairs, "trunk_sha256": trunk.sha256,
              "data_sha256": data_digest(data)}
    for seed in map(int, seeds.split(",")):
        for row in ROWS:
            if not only or row.name in only:
                run(row, seed, budget, trunk, data, out, threads)
                report = {**stamp(), "budget": budget,
                          "runs": finished(out, budget)}
                for name, text in (("ablation.json", json.dumps(report, indent=1) + "\n"),
                                   ("ablation.md", tables(report["runs"]))):
                    with atomic_file(out / name, overwrite=True) as file:
                        file.write(text.encode())
    click.echo((out / "ablation.md").read_text())


def data_digest(data: Path) -> str:
    """SHA-256 of all annotations: part of the budget, because other clips are not comparable."""
    digest = hashlib.sha256()
    for split in ("train", *SPLITS):
        digest.update((data / split / "instances.json").read_bytes())
    return digest.hexdigest()


def finished(out: Path, budget: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All completed runs in `out` with this budget, including those of other processes."""
    found = [json.loads(path.read_text()) for path in sorted(out.glob("*/result.json"))]
    return [result for result in found if result["budget"] == budget]


def run(row: Row, seed: int, budget: Mapping[str, Any], trunk: Checkpoint, data: Path, out: Path,
        threads: int | None) -> dict[str, Any]:
    """Train and evaluate one row with one seed, unless already done with the same budget."""
    folder = out / f"{row.name.replace(' ', '_').replace(':', '').replace('/', '')}_{seed}"
    done = folder / "result.json"
    if done.exists():
        result: dict[str, Any] = json.loads(done.read_text())
        if result["budget"] == budget:
            return result
    iterations = budget["iterations"]
    options = {**read_recipe("demo").options.to_dict(), "iterations": iterations, "seed": seed,
               "pairs_per_batch": budget["pairs_per_batch"], "validate_every": iterations,
               "ema_decay": 1 - 1 / max(1, AVERAGED * iterations)}
    start = folder / "start"
    start.mkdir(parents=True, exist_ok=True)
    recipe_file = start / "recipe.json"
    recipe_file.write_text(json.dumps({"training": options}, indent=1))
    checkpoint = write_start(row, seed, trunk, start)
    command = [sys.executable, "-m", "stmask_deploy.training", str(data / "train" / "instances.json"),
               "-o", str(folder), "--recipe", str(recipe_file), "--from", str(checkpoint), "--overwrite"]
    if threads is not None:
        command += ["--threads", str(threads)]
    click.echo(f"{row.name}, seed {seed}")
    if subprocess.run(command).returncode != 0:
        raise StmaskError(f"training {row.name} with seed {seed} failed; its message is above")
    # Without temporal fusion, detections are linked directly; masks are assembled as trained, not as in released code.
    way = Deployment("ONNX Runtime f32", plain_masks=True)
    datasets = {name: open_dataset(data / name) for name in SPLITS}
    with tempfile.TemporaryDirectory() as scratch:  # a persistent bundle would be mistaken for the next training's
        scores = measure(way, load_checkpoint(folder / "model.pth"), datasets, Path(scratch), threads)["scores"]
    result = {"row": row.name, "seed": seed, "budget": dict(budget), "scores": scores}
    done.write_text(json.dumps(result, indent=1) + "\n")
    return result


def write_start(row: Row, seed: int, trunk: Checkpoint, folder: Path) -> Path:
    """Write the checkpoint that a run starts from: the row's network, newly initialised except for its trunk."""
    config = Recipe(row.model(read_recipe("demo").model), TrainingOptions()).config(trunk.config.class_names)
    model = from_scratch(config, seed)
    model.load_state_dict({**model.state_dict(), **{name: value for name, value in trunk.state.items()
                                                    if name.startswith(TRUNK)}})
    return write_model(folder, model, config)


def tables(results: Sequence[Mapping[str, Any]]) -> str:
    """The paper's tables in Markdown, limited to rows that have results."""
    columns = [f"{split}: {score.upper()}" for split in SPLITS for score in SCORES]
    lines = []
    for title, names in TABLES.items():
        rows = [(name, [one for one in results if one["row"] == name]) for name in names]
        if any(found for _, found in rows):
            lines += [f"### {title}", "", f"| | seeds | {' | '.join(columns)} |",
                      "|---" * 2 + "|---:" * len(columns) + "|"]
            lines += [f"| {name} | {len(found)} | {' | '.join(_cells(found))} |" for name, found in rows if found]
            lines.append("")
    return "\n".join(lines)


def _cells(found: Sequence[Mapping[str, Any]]) -> list[str]:
    cells = []
    for split in SPLITS:
        for score in SCORES:
            values = [one["scores"][split][score] for one in found]
            spread = f" ± {(max(values) - min(values)) / 2:.1f}" if len(values) > 1 else ""
            cells.append(f"{mean(values):.1f}{spread}")
    return cells


if __name__ == "__main__":
    main()
