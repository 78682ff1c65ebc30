"""Verification of exported graphs against PyTorch, output by output."""
from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from stmask_deploy.bundle import OWN_GRAPHS, BundleDescription, read_description
from stmask_deploy.errors import InputError
from stmask_deploy.models.boxes import decode_boxes
from stmask_deploy.models.frames import prepare_frames
from stmask_deploy.models.stmask import STMask
from stmask_deploy.runtime.loading import Bundle, open_bundle
from stmask_deploy.runtime.prototypes import covered_cells, prototypes_within
from stmask_deploy.synthetic.clips import render

from .frame_graph import FrameGraph, shared_rows
from .half_range import range_checks
from .temporal_graph import TemporalGraph
from .verification import Arrays, Check, Deviation, Verification, spread
from .verify_levels import ROW_OUTPUTS, level_checks

Image = NDArray[np.uint8]  # BGR

# Largest allowed error of an output, as a share of its range. Rounding weights to f16 (11 significant bits) costs a
# wide network 1e-3 and a tiny one ten times that: the f16 limits detect a broken conversion, not a loss of accuracy.
TOLERANCES = {"onnxruntime": 1e-4, "onnxruntime f16": 5e-2, "openvino": 1e-4, "openvino f16 weights": 5e-2}
NUM_FRAMES = 3
NUM_ROWS = 40  # best-scoring anchors passed to the instance graph, besides the corners of the levels
NUM_BOXES = (0, 1, 8)  # numbers of objects passed to the temporal graph
WINDOWS = np.array([[0, 0, 1, 1], [0, 0, 0.1, 0.2], [0.9, 0.7, 1, 1], [0.4, 0.45, 0.5, 0.6]], np.float32)  # boxes
SMALLEST_DELTA_RANGE = 1e-3
MAP_OUTPUTS = ("prototypes", "p3", "shared", "fpn", "temporal")


def exported_backends(description: BundleDescription) -> list[str]:
    """The backends that a bundle was written for; missing files are reported when it is opened."""
    return ["onnxruntime"] if description.openvino_weights is None else ["onnxruntime", "openvino"]


def exported_graphs(description: BundleDescription) -> Iterator[tuple[str, str, str]]:
    """Yield (backend, precision, name) of all graph sets in a bundle; those named in `TOLERANCES` are compared."""
    for backend in exported_backends(description):
        half_weights = backend == "openvino" and description.openvino_weights == "f16"
        yield backend, "f32", f"{backend} f16 weights" if half_weights else backend
        for precision in description.precisions:
            if precision in OWN_GRAPHS[backend]:
                yield backend, precision, f"{backend} {precision}"


def verify_bundle(folder: Path, model: STMask, tolerance: float | None = None,
                  frames: Sequence[Image] | None = None) -> Verification:
    """Compare the graphs of a bundle with PyTorch, on every backend it was written for.

    int8 graphs are only opened: they match PyTorch's values only roughly, and `int8_gate` judges them.

    Args:
        folder: the bundle.
        model: the network that the bundle was exported from.
        tolerance: largest allowed error, as a share of an output's range; by default `TOLERANCES`.
        frames: (H, W, 3) uint8 BGR pictures of any size, at least two; by default a generated scene.

    Raises:
        InputError: a graph cannot be opened, or the network returns NaN or infinite values.
        DeviceError: a backend's library is missing.
        StmaskError: a backend fails to run a graph.
    """
    description = read_description(folder)
    pictures = frames if frames is not None else list(render("val", 7, NUM_FRAMES).pictures())
    height, width = description.model.input_size
    resized = [np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)[None]
               for picture in pictures]
    references = [frame_reference(model, description, frame) for frame in resized]
    steps = list(_temporal_steps(model, description, references)) if description.model.temporal is not None else []
    checks: list[Check] = []
    for backend, precision, key in exported_graphs(description):
        bundle = open_bundle(folder, backend, device="cpu", precision=precision)
        if key not in TOLERANCES:
            continue
        limit = TOLERANCES[key] if tolerance is None else tolerance
        deviations = chain(
            _frame_checks(bundle, resized, references, limit),
            level_checks(folder, description, backend, precision, zip(resized, references, strict=True)),
            _prototype_checks(bundle, references),
            _instance_checks(bundle, references),
            _temporal_checks(bundle, steps))
        if precision == "f16":
            feeds = {"frame": [{"frame": frame} for frame in resized],
                     "instances": [{"shared": reference["shared"], "anchor_index": _rows(description, reference)}
                                   for reference in references],
                     "temporal": [inputs for inputs, _ in steps if len(inputs["boxes"])]}
            deviations = chain(deviations, range_checks(folder, description, feeds))
        checks += _merge(deviations, backend if precision == "f32" else key, limit)
    return Verification(tuple(checks))


def _merge(deviations: Iterable[Deviation], backend: str, tolerance: float) -> list[Check]:
    """Checks of the worst deviation of each output, over all frames."""
    worst: dict[str, Check] = {}
    for one in deviations:
        check = Check(backend, one.output, one.shape, one.error, tolerance, one.problem)
        known = worst.get(check.output)
        if known is None or (known.passed and (not check.passed or check.error > known.error)):
            worst[check.output] = check
    return list(worst.values())


def _frame_checks(bundle: Bundle, frames: Sequence[Image], references: Sequence[Arrays], tolerance: float
                  ) -> Iterator[Deviation]:
    for frame, reference in zip(frames, references, strict=True):
        found = bundle.frame.run({"frame": frame})
        index = found["anchor_index"]
        if len(np.unique(index)) < len(index) or index.min() < 0 or index.max() >= len(reference["boxes"]):
            yield Deviation("frame/anchor_index", index.shape, 0.0, "rows of no anchor, or one twice")
            continue
        for name in ROW_OUTPUTS:  # every output row against the same anchor in PyTorch
            yield _compare(f"frame/{name}", reference[name][index], found[name], span=float(np.ptp(reference[name])))
        for name in MAP_OUTPUTS:
            if name in found:
                yield _compare(f"frame/{name}", reference[name], found[name])
        yield _choice_check(reference, found, bundle.description, tolerance)


def frame_reference(model: STMask, description: BundleDescription, frame: Image) -> dict[str, NDArray[Any]]:
    """PyTorch's predictions for *all* anchors and the frame's maps, named like the frame graph's outputs.

    Raises:
        InputError: a value is NaN or infinite, so that there is nothing to compare with.
    """
    graph = FrameGraph(model, description.model, description.max_candidates, description.candidate_threshold)
    with torch.no_grad():
        prediction = model(prepare_frames(torch.from_numpy(frame), description.model))
        anchors = prediction.anchors
        values = {"boxes": decode_boxes(anchors.box_deltas[0], graph.anchors),
                  "class_scores": anchors.class_probs[0, :, 1:], "centerness": anchors.centerness[0],
                  "mask_coeffs": anchors.mask_coeffs[0], "embeddings": anchors.embeddings[0],
                  "prototypes": prediction.prototypes[0], "p3": prediction.p3, "shared": shared_rows(prediction),
                  "fpn": prediction.fpn, "temporal": prediction.temporal}
    wrong = [name for name, value in values.items() if not bool(torch.isfinite(value).all())]
    if wrong:
        raise InputError(f"checkpoint {description.checkpoint_name}: the network gives values that are not numbers "
                         f"({', '.join(wrong)}); its training has failed, or the file is damaged")
    return {name: value.numpy() for name, value in values.items()}


def _prototype_checks(bundle: Bundle, references: Sequence[Arrays]) -> Iterator[Deviation]:
    """Compare the prototypes of windows (whole frame, two corners, middle) with those of the whole frame."""
    if bundle.prototypes is None:
        return
    for reference in references:
        expected = reference["prototypes"]
        for box in WINDOWS[:, None]:
            found = prototypes_within(box, reference["p3"], bundle.prototypes)
            read = covered_cells(box, expected.shape[:2])
            yield _compare("prototypes/prototypes", expected[read], found[read], span=float(np.ptp(expected)))


def _instance_checks(bundle: Bundle, references: Sequence[Arrays]) -> Iterator[Deviation]:
    """Compare rows of anchors with the dense branches."""
    if bundle.instances is None:
        return
    for reference in references:
        rows = _rows(bundle.description, reference)
        for chosen in (rows[:0], rows):
            found = bundle.instances.run({"shared": reference["shared"], "anchor_index": chosen})
            for name, value in found.items():
                yield _compare(f"instances/{name}", reference[name][chosen], value,
                               span=float(np.ptp(reference[name])))


def _rows(description: BundleDescription, reference: Arrays) -> NDArray[np.int64]:
    """Anchors for the instance graph: the best, and one each in every level's first and last cell."""
    model = description.model
    cells = np.cumsum([height * width for height, width in model.level_sizes])
    corners = np.concatenate([[0], cells, cells - 1]) * model.anchors_per_cell
    best = np.argsort(-reference["class_scores"].max(axis=1), kind="stable")[:NUM_ROWS]
    return np.unique(np.concatenate([best, corners[corners < len(reference["boxes"])]])).astype(np.int64)


def _choice_check(reference: Arrays, found: Arrays, description: BundleDescription, tolerance: float) -> Deviation:
    """Check that the graph selected the same anchors as PyTorch; those within the tolerance of a limit may differ."""
    best = reference["class_scores"].max(axis=1)
    rank = best * reference["centerness"]
    rows = len(found["anchor_index"])
    count = int(found["num_candidates"])
    margin = tolerance * float(np.ptp(best))
    surely = best > description.candidate_threshold + margin
    maybe = best > description.candidate_threshold - margin
    chosen = np.zeros(len(best), bool)
    chosen[found["anchor_index"][:min(count, rows)]] = True
    problem = ""
    if not surely.sum() <= count <= maybe.sum():
        problem = f"{count} candidates, PyTorch has {int(surely.sum())} to {int(maybe.sum())}"
    elif (chosen & ~maybe).any():
        problem = f"rows that are no candidates: {int((chosen & ~maybe).sum())}"
    else:
        left = surely & ~chosen
        lowest = rank[chosen].min() if chosen.any() else np.inf
        slack = 2 * tolerance * float(np.ptp(rank))
        if left.any() and (count <= rows or rank[left].max() > lowest + slack):
            problem = f"better candidates left out: {int(left.sum())}"
    return Deviation("frame/anchor_index", found["anchor_index"].shape, 0.0, problem)


def _temporal_steps(model: STMask, description: BundleDescription, references: Sequence[Arrays]
                    ) -> Iterator[tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]]:
    """Yield the temporal graph's inputs and PyTorch's outputs, for consecutive frames and several numbers of boxes."""
    graph = TemporalGraph(model)
    inputs, outputs = description.tensor_names("temporal")
    for before, now in zip(references, references[1:], strict=False):
        order = np.argsort(-before["class_scores"].max(axis=1), kind="stable")
        for count in NUM_BOXES:
            feeds = {"prev_fpn": before["fpn"], "fpn": now["fpn"], "prev_temporal": before["temporal"],
                     "temporal": now["temporal"], "boxes": np.ascontiguousarray(before["boxes"][order[:count]])}
            with torch.no_grad():
                values = graph(*(torch.from_numpy(feeds[name]) for name in inputs))
            yield feeds, {name: value.numpy() for name, value in zip(outputs, values, strict=True)}


def _temporal_checks(bundle: Bundle, steps: Sequence[tuple[Arrays, Arrays]]) -> Iterator[Deviation]:
    if bundle.temporal is None:
        return
    for feeds, reference in steps:
        found = bundle.temporal.run(feeds)
        for name, value in reference.items():
            # The range of the deltas of a single box may be tiny, and without boxes there is none.
            span = max(float(np.ptp(value)) if value.size else 0.0, SMALLEST_DELTA_RANGE)
            yield _compare(f"temporal/{name}", value, found[name], span)


def _compare(output: str, reference: NDArray[Any], found: NDArray[Any], span: float | None = None) -> Deviation:
    if reference.shape != found.shape:
        return Deviation(output, found.shape, float("nan"), f"shape, expected {reference.shape}")
    if not reference.size:
        return Deviation(output, found.shape, 0.0)
    width = spread(reference) if span is None else max(span, 1e-6)
    difference = float(np.abs(reference.astype(np.float64) - found.astype(np.float64)).max())
    return Deviation(output, found.shape, difference / width)
