"""The demo model: weights, exported graphs and a clip that come with the package.

A small STMask for six kinds of shapes, trained on the synthetic benchmark with the recipes `demo-small`, `demo` and
`demo-finish`. It demonstrates the toolkit and provides ground truth for comparisons of backends and options. See
docs/demo-model.md for its figures.
"""
from __future__ import annotations

from importlib.resources import files
from pathlib import Path

_FOLDER = Path(str(files(__name__)))


def demo_checkpoint() -> Path:
    """The checkpoint, for `stmask-export` and `stmask-train --from`."""
    return _FOLDER / "shapes.pth"


def demo_bundle() -> Path:
    """The exported graphs for ONNX Runtime and OpenVINO, which `stmask-run` uses if no other bundle is given."""
    return _FOLDER / "shapes_stmask"


def demo_clip() -> Path:
    """A generated clip of a few seconds that the model has not seen."""
    return _FOLDER / "clip.mp4"


def demo_annotations() -> Path:
    """The ground-truth masks and identities of the clip, in YouTube-VIS format."""
    return _FOLDER / "clip.json"
