"""`python -m stmask_deploy.demo [OUT_DIR]`: the whole workflow with the demo model, from checkpoint to pictures."""
from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import av
import click
import cv2
import numpy as np

from .atomic import atomic_file, cannot_write
from .console import Command
from .errors import InputError, StmaskError
from .option_types import NamedPath
from .pretrained import demo_annotations, demo_checkpoint, demo_clip

SHEET = 2, 3  # rows and columns of the grid


@click.command(cls=Command)
@click.argument("out_dir", type=NamedPath(file_okay=False), default=Path("demo"))
def main(out_dir: Path) -> None:
    """Export the demo model to OUT_DIR, run it on the bundled clip, and compare the result with the ground truth.

    Any other checkpoint and video go through the same commands.
    """
    bundle, results = out_dir / "bundle", out_dir / "results"
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(out_dir, error) from error
    run_command("stmask-export", demo_checkpoint(), "-o", bundle, "--overwrite")
    run_command("stmask-run", demo_clip(), "-m", bundle, "-o", results, "--overwrite")
    run_command("stmask-eval", results / "results.jsonl", demo_annotations())
    sheet = out_dir / "pictures.png"
    write_contact_sheet(sheet, results / "video.mp4")
    click.echo(f"Look at    {sheet} and {results / 'video.mp4'}\nNumbers in {results / 'results.jsonl'}")


def run_command(name: str, *arguments: object) -> None:
    """Run one of the project's commands as a user would, sharing our standard output and error."""
    words = [name, *(str(one) for one in arguments)]
    click.echo(f"$ {shlex.join(words)}")
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        raise InputError(f"the command {name} is not installed beside {sys.executable}: run `pip install -e .` first")
    code = subprocess.run([found, *words[1:]]).returncode  # noqa: S603 (a command of this package)
    if code != 0:
        raise StmaskError(f"{name} ended with exit code {code}; its message is above")
    click.echo()


def write_contact_sheet(path: Path, video: Path) -> None:
    """Write evenly spaced frames of a video as a grid in one picture."""
    rows, columns = SHEET
    with av.open(f"file:{video}") as container:
        frames = [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]
    picks = [frames[i] for i in np.linspace(0, len(frames) - 1, rows * columns).round().astype(int)]
    lines = [np.hstack(picks[row * columns:(row + 1) * columns]) for row in range(rows)]
    _, data = cv2.imencode(".png", np.vstack(lines))  # imwrite crashes on names that are not text
    with atomic_file(path, overwrite=True) as file:
        file.write(data.tobytes())


if __name__ == "__main__":
    main()
