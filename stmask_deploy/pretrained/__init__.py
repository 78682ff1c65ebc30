"""The demo model: weights, exported graphs and a clip that come with the package.

A small STMask for six kinds of shapes, trained on the synthetic benchmark by the recipe `demo`. It shows what the
toolkit does, and gives every comparison of backends and options a truth to be judged by. docs/demo-model.md has its
figures.
"""
from __future__ import annotations

from importlib.resources import files
from pathlib import Path

_FOLDER = Path(str(files(__name__)))


def demo_checkpoint() -> Path:
    """What `stmask-export` and `stmask-train --from` take."""
    return _FOLDER / "shapes.pth"


def demo_bundle() -> Path:
    """The exported graphs, for ONNX Runtime and OpenVINO: what `stmask-run` takes where no other bundle is named."""
    return _FOLDER / "shapes_stmask"


def demo_clip() -> Path:
    """A generated clip of a few seconds that the model has not seen."""
    return _FOLDER / "clip.mp4"


def demo_annotations() -> Path:
    """The true masks and identities of the clip, in the format of YouTube-VIS."""
    return _FOLDER / "clip.json"
