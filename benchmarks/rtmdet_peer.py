"""RTMDet-Ins, a one-stage segmenter of the YOLO class under the Apache licence, with random weights.

Install it with `pip install --no-deps libreyolo`. The package as a whole needs torchvision; the network's own file does
not, so only that file is loaded.
"""
from __future__ import annotations

import importlib.util
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

PACKAGE, FILE = "libreyolo", "libreyolo/models/rtmdet/nn.py"
SIZE = "l"  # of t, s, m, l, x: the one whose arithmetic is closest to STMask's with a ResNet-50


def build_rtmdet() -> Any:
    """The network, for inputs of (1, 3, H, W).

    Raises:
        ImportError: the package is not installed, or has another layout.
    """
    try:
        path = Path(str(distribution(PACKAGE).locate_file(FILE)))
    except PackageNotFoundError as error:
        raise ImportError(f"{PACKAGE} is not installed: pip install --no-deps {PACKAGE}") from error
    spec = importlib.util.spec_from_file_location("rtmdet_network", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ImportError(f"{PACKAGE} has no {FILE}; this script was written for its version 1.6")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.LibreRTMDetModel(SIZE, nc=80, enable_mask_head=True)


def export_rtmdet(path: Path, size: tuple[int, int]) -> None:
    """Write its ONNX file for pictures of (height, width).

    Raises:
        ImportError: see `build_rtmdet`.
    """
    import torch

    torch.onnx.export(build_rtmdet().eval(), (torch.zeros(1, 3, *size),), str(path), dynamo=True, input_names=["x"],
                      external_data=False, verbose=False)
