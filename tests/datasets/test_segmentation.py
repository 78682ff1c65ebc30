from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from stmask_deploy.datasets.segmentation import decode, encode, normalise, run_lengths
from stmask_deploy.errors import InputError


@st.composite
def masks(draw: st.DrawFn) -> NDArray[np.bool_]:
    """Small, or large enough for run lengths of several characters; noise, a filled block, or both."""
    shape = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)) | st.just((300, 200)))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    mask: NDArray[np.bool_] = rng.random(shape) < draw(st.sampled_from([0.0, 0.001, 0.3, 0.999, 1.0]))
    mask[:draw(st.integers(0, shape[0])), :draw(st.integers(0, shape[1]))] = True
    return mask


def slow_lengths(mask: NDArray[np.bool_]) -> list[int]:
    """Runs of 0, 1, 0, ... counted pixel by pixel, column after column."""
    lengths, value = [0], False
    for pixel in mask.T.ravel().tolist():
        if pixel != value:
            lengths.append(0)
            value = pixel
        lengths[-1] += 1
    return lengths


@settings(max_examples=150)
@given(masks())
def test_all_forms_of_a_mask_are_one(mask: NDArray[np.bool_]) -> None:
    encoded, lengths = encode(mask), slow_lengths(mask)
    height, width = mask.shape
    assert encoded["size"] == [height, width]
    assert run_lengths(encoded["counts"]).tolist() == lengths
    assert normalise(encoded, height, width) == encoded
    assert normalise({"size": [height, width], "counts": lengths}, height, width) == encoded
    np.testing.assert_array_equal(decode(encoded), mask)


@pytest.mark.parametrize("counts, pixels", [
    ([2, 0, 1, 3], [0, 0, 0, 1, 1, 1]),
    ([0, 0, 0, 6], [1] * 6),  # pycocotools' operations would stop at the second of these
    ([0, 2, 0, 0, 0, 3, 1, 0], [1, 1, 1, 1, 1, 0]),
    ([1, 0, 5, 0, 0], [0] * 6),
])
def test_empty_runs_inside_are_merged(counts: list[int], pixels: list[int]) -> None:
    expected = encode(np.array(pixels, np.bool_).reshape(3, 2).T)
    assert normalise({"size": [2, 3], "counts": counts}, 2, 3) == expected
    compressed = coco_mask.frPyObjects({"size": [2, 3], "counts": counts}, 2, 3)["counts"].decode()
    assert normalise({"size": [2, 3], "counts": compressed}, 2, 3) == expected


def test_polygons_are_united() -> None:
    left, right = [1, 1, 4, 1, 4, 6, 1, 6], [3.0, 2.0, 8.0, 2.0, 8.0, 5.0, 3.0, 5.0]
    expected = np.zeros((8, 10), np.bool_)
    expected[1:6, 1:4] = expected[2:5, 3:8] = True
    np.testing.assert_array_equal(decode(normalise([left, right], 8, 10)), expected)


@pytest.mark.parametrize("segmentation, message", [
    (3, "expected an RLE object or polygons, found int"),
    ({"size": [3, 2], "counts": [6]}, r"expected size \[2, 3\]"),
    ({"size": "a\nb", "counts": [6]}, r"found 'a\\nb'"),
    ({"counts": [6]}, "found None"),
    ({"size": [2, 3]}, "expected counts as a string or a list, found NoneType"),
    ({"size": [2, 3], "counts": b"6"}, "found bytes"),
    ({"size": [2, 3], "counts": [5]}, "do not add up"),
    ({"size": [2, 3], "counts": [7, -1]}, "do not add up"),
    ({"size": [2, 3], "counts": [2 ** 62] * 4 + [6]}, "do not add up"),  # in 64 bits their sum is 6
    ({"size": [2, 3], "counts": []}, "flat list of whole numbers"),
    ({"size": [2, 3], "counts": [2.0, 4.0]}, "flat list of whole numbers"),
    ({"size": [2, 3], "counts": [[6]]}, "flat list of whole numbers"),
    ({"size": [2, 3], "counts": [[6], [1, 2]]}, "flat list of whole numbers"),
    ({"size": [2, 3], "counts": ["6"]}, "flat list of whole numbers"),
    ({"size": [2, 3], "counts": [True, 5]}, None),  # JSON's true counts as 1 to NumPy: harmless
    ({"size": [2, 3], "counts": ""}, "damaged or cut off"),
    ({"size": [2, 3], "counts": "P"}, "damaged or cut off"),  # says that another character follows
    ({"size": [2, 3], "counts": " 6"}, "damaged or cut off"),
    ({"size": [2, 3], "counts": "6é"}, "damaged or cut off"),
    ({"size": [2, 3], "counts": "\ud800"}, "damaged or cut off"),
    ({"size": [2, 3], "counts": "PPPPPPP1"}, "too large"),
    ({"size": [2, 3], "counts": "5"}, "do not add up"),
    ([], "an empty list of polygons"),
    ([[1, 1, 2, 2]], "three points or more"),
    ([[1, 1, 2, 2, 3, 3, 4]], "three points or more"),
    ([1, 1, 2, 2, 3, 3], "three points or more"),
    ([[1, 1, 2, 2, 3, float("nan")]], "far outside"),
    ([[1, 1, 2, 2, 3, 1e9]], "far outside"),
    ([[1, 1, 2, 2, 3, "3"]], "far outside"),
    ([[-4, -4, 9, 9] * 400_000], "outlines of more than"), ([[-4, -4, 9, 9] * 100_000] * 4, "outlines of more than"),
])
def test_what_is_no_mask_is_named(segmentation: Any, message: str | None) -> None:
    if message is None:
        assert decode(normalise(segmentation, 2, 3)).sum() == 5
        return
    with pytest.raises(InputError, match=message):
        normalise(segmentation, 2, 3)


def test_any_text_is_refused_or_read() -> None:
    # pycocotools itself reads beyond the end of a string that breaks off.
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(3000):
        counts = bytes(rng.integers(48, 112, rng.integers(1, 8)).tolist()).decode()
        try:
            decode(normalise({"size": [4, 5], "counts": counts}, 4, 5))
        except InputError:
            refused += 1
    assert 2000 < refused < 3000
