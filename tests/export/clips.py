"""Clips for the tests of int8: folders of images."""
from __future__ import annotations

from pathlib import Path

import cv2

from stmask_deploy.scenes import render_clip

SIZE = (72, 100)  # height and width, pixels


def write_clip(folder: Path, num_frames: int) -> Path:
    folder.mkdir()
    for index, frame in enumerate(render_clip(num_frames, SIZE, seed=1)):
        cv2.imwrite(str(folder / f"{index:03d}.png"), frame)
    return folder
