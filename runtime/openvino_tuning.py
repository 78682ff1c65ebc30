"""Where and how Winograd's algorithm is used in OpenVINO, by measurement on CPUs of several kinds."""
from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Tuning:
    """How Winograd's algorithm is fastest on a CPU."""

    columns: int  # tile columns per block: the fewer, the fewer products with zeros, and the smaller each product
    # The share of a map from which on a graph of the whole map is faster than one of any size: the algorithm takes
    # larger blocks of a map of known size, and in bf16 takes no other maps at all.
    whole_from: float


_WITH_BF16 = {"f32": Tuning(columns=10, whole_from=0.7),  # measured with AVX-512
              "bf16": Tuning(columns=10, whole_from=0.55)}
_OTHERS = {"f32": Tuning(columns=5, whole_from=0.75)}  # with AVX2 alone; the share on a CPU held to it


def tuning(core: Any, precision: str) -> Tuning | None:
    """How Winograd's algorithm is used on this CPU, or None where the plugin's own convolutions are faster.

    They are in bf16 on CPUs with matrix units (AMX, recognised by FP16 support, which some without them have too),
    where reading weights costs more than multiplying. Processors other than x86 were not measured (on ARM the plugin
    has the algorithm itself); CPUs without bf16 are refused this precision elsewhere.

    Args:
        core: the `openvino.Core`.
        precision: f32 | bf16.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return None
    able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if precision == "bf16" and "FP16" in able:
        return None
    return (_WITH_BF16 if "BF16" in able else _OTHERS).get(precision)
