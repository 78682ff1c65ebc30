from __future__ import annotations

import pytest

from stmask_deploy.runtime import openvino_tuning
from stmask_deploy.runtime.openvino_tuning import tuning


class CoreOfCapabilities:
    """What of `openvino.Core` says what a CPU is good at."""

    def __init__(self, *words: str) -> None:
        self.words = list(words)

    def get_property(self, device: str, name: str) -> list[str]:
        assert (device, name) == ("CPU", "OPTIMIZATION_CAPABILITIES")
        return self.words


@pytest.mark.parametrize(("machine", "words", "precision", "expected"), [
    ("x86_64", ["FP32"], "f32", (5, 0.75)),
    ("x86_64", ["FP32", "BF16"], "f32", (10, 0.7)),
    ("AMD64", ["FP32", "BF16", "FP16"], "f32", (10, 0.7)),
    ("x86_64", ["FP32", "BF16"], "bf16", (10, 0.55)),
    ("x86_64", ["FP32", "BF16", "FP16"], "bf16", None),  # with matrix units
    ("x86_64", ["FP32"], "bf16", None),
    ("x86_64", ["FP32", "FP16"], "f16", None),
    ("aarch64", ["FP32"], "f32", None),
    ("arm64", ["FP32", "BF16"], "bf16", None),
])
def test_where_and_how_convolutions_are_winograds(monkeypatch: pytest.MonkeyPatch, machine: str, words: list[str],
                                                  precision: str, expected: tuple[int, float] | None) -> None:
    monkeypatch.setattr(openvino_tuning.platform, "machine", lambda: machine)
    found = tuning(CoreOfCapabilities(*words), precision)
    assert (None if found is None else (found.columns, found.whole_from)) == expected
