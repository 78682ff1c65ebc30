"""`stmask-run` in this process, and clips for it."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import av
from click.testing import CliRunner, Result
from tiny_bundles import picture

from stmask_deploy.runtime.cli import main


def write_clip(path: Path, num_frames: int) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 128, 80, "yuv420p"
        for index in range(num_frames):
            frame = av.VideoFrame.from_ndarray(picture(100 + index % 50), format="bgr24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def call(*args: Any) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])
