"""`python -m stmask_deploy.demo [OUT_DIR]`: the whole path on generated material, with untrained weights."""
from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from itertools import islice
from pathlib import Path

import av
import click
import cv2
import numpy as np
from numpy.typing import NDArray

from .config import Calibration, ModelConfig, TemporalConfig
from .console import Command
from .errors import InputError, StmaskError
from .scenes import render_clip

Frame = NDArray[np.uint8]  # (H, W, 3) BGR

CONFIG = ModelConfig(
    class_names=("ant", "bee", "cat", "dog"),
    stem_width=16, depths=(1, 1, 1, 1), widths=(16, 16, 24, 32), expansion=2,
    deformable_blocks=((1, 0), (2, 0), (3, 0)),
    fpn_width=32, proto_width=32, num_prototypes=16, head_width=32, embedding_dim=16,
    class_calibration=Calibration.ADAPTIVE,
    temporal=TemporalConfig(widths=(32, 32, 64)),
    input_size=(180, 320),
)
CLIP_HW = (360, 640)
FPS = 24
NUM_FRAMES = 72


@click.command(cls=Command)
@click.argument("out_dir", type=click.Path(path_type=Path, file_okay=False), default=Path("demo"))
def main(out_dir: Path) -> None:
    """Write a small untrained checkpoint and a generated clip to OUT_DIR, export the one and run it on the other.

    It shows that every step works here, not what STMask can find: the weights are random.
    """
    checkpoint, clip, bundle, results = (out_dir / name for name in ("untrained.pth", "clip.mp4", "bundle", "results"))
    out_dir.mkdir(parents=True, exist_ok=True)
    click.echo("The weights of this demo are UNTRAINED: what is found means nothing, only that every step works.\n")
    frames = list(render_clip(NUM_FRAMES, size=CLIP_HW, seed=0))
    click.echo(f"writing {clip} ({len(frames)} generated frames, {CLIP_HW[1]}x{CLIP_HW[0]}) and {checkpoint}\n")
    write_clip(clip, frames)
    write_checkpoint(checkpoint, frames)
    run_command("stmask-export", checkpoint, "-o", bundle, "--overwrite")
    run_command("stmask-run", clip, "-m", bundle, "-o", results, "--overwrite")
    sheet = out_dir / "pictures.png"
    write_contact_sheet(sheet, results / "video.mp4")
    click.echo(f"Look at    {sheet} and {results / 'video.mp4'}\n"
               f"Numbers in {results / 'results.jsonl'}\n"
               "Untrained weights, as said: shapes are outlined because the threshold was set so that some are.")


def write_clip(path: Path, frames: list[Frame]) -> None:
    """Write frames as H.264."""
    height, width = frames[0].shape[:2]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="bgr24")))
        container.mux(stream.encode())


def write_checkpoint(path: Path, frames: list[Frame]) -> None:
    """Write an untrained checkpoint of `CONFIG`, its output scaled to two of the frames."""
    try:
        import torch
    except ImportError as error:
        raise InputError("the demo exports a checkpoint, which needs PyTorch: "
                         "pip install 'stmask-deploy[export,cpu]'") from error
    from .models.checkpoint import CONFIG_KEY
    from .models.untrained import build_untrained

    height, width = CONFIG.input_size
    samples = [np.asarray(cv2.resize(frame, (width, height)), np.uint8)
               for frame in (frames[0], frames[len(frames) // 2])]
    model = build_untrained(CONFIG, samples, candidate_share=0.004, seed=1)
    torch.save({"state_dict": model.state_dict(), CONFIG_KEY: CONFIG.to_dict()}, path)


def run_command(name: str, *arguments: object) -> None:
    """Run one of the project's commands as a user would, its output on ours."""
    words = [name, *(str(one) for one in arguments)]
    click.echo(f"$ {shlex.join(words)}")
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        raise InputError(f"the command {name} is not installed beside {sys.executable}: run `pip install -e .` first")
    code = subprocess.run([found, *words[1:]]).returncode  # noqa: S603 (a command of this package)
    if code != 0:
        raise StmaskError(f"{name} ended with exit code {code}; its message is above")
    click.echo()


def write_contact_sheet(path: Path, video: Path, rows: int = 2, columns: int = 3) -> None:
    """Write evenly spaced frames of a video as one picture."""
    with av.open(str(video)) as container:
        frames = [frame.to_ndarray(format="bgr24") for frame in islice(container.decode(video=0), NUM_FRAMES)]
    picks = [frames[i] for i in np.linspace(0, len(frames) - 1, rows * columns).round().astype(int)]
    lines = [np.hstack(picks[row * columns:(row + 1) * columns]) for row in range(rows)]
    cv2.imwrite(str(path), np.vstack(lines))


if __name__ == "__main__":
    main()
