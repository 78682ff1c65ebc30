"""Types and shapes of the inputs and outputs of a bundle's graphs, as docs/bundle.md has them."""
from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from .bundle import TEMPORAL_MAPS, BundleDescription

_DTYPES = {"frame": "uint8", "anchor_index": "int64", "num_candidates": "int64"}  # of the others: float32


class GraphTensor(NamedTuple):
    """An input or output of a graph."""

    dtype: str  # as NumPy names it
    shape: tuple[int | str, ...]  # a letter for a size that the graph leaves open


def graph_tensors(description: BundleDescription, role: str) -> Mapping[str, GraphTensor]:
    """The inputs and outputs of the graph of `role` (one of `bundle.ROLES`) by name, inputs first."""
    model, rows = description.model, description.max_candidates
    levels = model.level_sizes
    shared: tuple[int | str, ...] = (sum(height * width for height, width in levels), model.head_width)
    shapes: dict[str, tuple[int | str, ...]] = {}
    if model.temporal is not None:
        size = levels[model.temporal.level]
        shapes = {"fpn": (1, model.fpn_width, *size), "temporal": (1, model.head_width, *size)}
    if role == "prototypes":
        shapes = {"p3": (1, model.fpn_width, "H", "W"), "prototypes": ("2H", "2W", model.num_prototypes)}
    elif role == "instances":
        shapes = {"shared": shared, "anchor_index": ("N",), "mask_coeffs": ("N", model.num_prototypes),
                  "embeddings": ("N", model.embedding_dim)}
    elif role == "frame":
        height, width = levels[0]
        shapes |= {
            "frame": (1, *model.input_size, 3), "boxes": (rows, 4), "class_scores": (rows, model.num_classes - 1),
            "centerness": (rows,), "mask_coeffs": (rows, model.num_prototypes),
            "embeddings": (rows, model.embedding_dim), "anchor_index": (rows,), "num_candidates": (),
            "prototypes": (2 * height, 2 * width, model.num_prototypes), "p3": (1, model.fpn_width, height, width),
            "shared": shared}
    else:
        shapes |= {f"prev_{name}": shapes[name] for name in TEMPORAL_MAPS}
        shapes |= {"boxes": ("N", 4), "box_deltas": ("N", 4), "coeff_deltas": ("N", model.num_prototypes)}
    inputs, outputs = description.tensor_names(role)
    return {name: GraphTensor(_DTYPES.get(name, "float32"), shapes[name]) for name in (*inputs, *outputs)}
