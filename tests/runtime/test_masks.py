from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from stmask_deploy.geometry import FrameGeometry
from stmask_deploy.runtime.masks import BilinearAxis, MaskPatch, assemble_masks, bilinear_axes, upsample_mask
from stmask_deploy.types import Array

DATA = Path(__file__).resolve().parent.parent / "data"
GEOMETRIES = [  # original, resized, padded, mask
    FrameGeometry((480, 854), (360, 640), (384, 640)),
    FrameGeometry((720, 1280), (360, 640), (384, 640)),
    FrameGeometry((243, 431), (360, 640), (384, 640)),
    FrameGeometry((31, 45), (360, 640), (384, 640)),  # smaller than the mask itself
    FrameGeometry((1, 1), (360, 640), (384, 640)),
    FrameGeometry((201, 333), (202, 331), (224, 352)),  # the picture ends inside a mask cell
]


def slow_assemble(prototypes: Array, coeffs: Array, boxes: Array) -> Array:
    height, width, _ = prototypes.shape
    masks = 1 / (1 + np.exp(-np.einsum("hwp,np->nhw", prototypes.astype(float), np.tanh(coeffs.astype(float)))))
    for mask, box in zip(masks, boxes, strict=True):
        x1, x2 = sorted((box[0] * np.float32(width), box[2] * np.float32(width)))
        y1, y2 = sorted((box[1] * np.float32(height), box[3] * np.float32(height)))
        for i in range(height):
            for j in range(width):
                if not (max(y1 - 1, 0) <= i < min(y2 + 1, height) and max(x1 - 1, 0) <= j < min(x2 + 1, width)):
                    mask[i, j] = 0
    return masks


def slow_resize(mask: Array, geometry: FrameGeometry) -> Array:
    """Bilinear with half-pixel centres over the whole picture, in float64 with positions as float32 has them."""
    def axis(cells: int, resized: int, padded: int, original: int) -> Array:
        content = cells * resized / padded
        last = int(np.ceil(content)) - 1
        matrix = np.zeros((original, cells))
        for pixel in range(original):
            at = max(np.float32(float(np.float32(content) / np.float32(original)) * (pixel + 0.5) - 0.5), np.float32(0))
            cell = min(int(at), last)
            share = min(float(at) - cell, 1.0)
            matrix[pixel, cell] += 1 - share
            matrix[pixel, min(cell + 1, last)] += share
        return matrix

    rows, columns = (axis(*sizes) for sizes in zip(mask.shape, geometry.resized_hw, geometry.padded_hw,
                                                   geometry.original_hw, strict=True))
    return rows @ mask.astype(float) @ columns.T


def whole(patch: MaskPatch, frame_hw: tuple[int, int]) -> NDArray[np.bool_]:
    mask = np.zeros(frame_hw, np.bool_)
    h, w = patch.pixels.shape
    mask[patch.y:patch.y + h, patch.x:patch.x + w] = patch.pixels
    return mask


def blobs(rng: np.random.Generator, count: int, hw: tuple[int, int]) -> Array:
    """Soft masks with holes, borders and several parts; the odd ones cut to 0 and 1."""
    y, x = np.mgrid[:hw[0], :hw[1]]
    masks = []
    for index in range(count):
        waves = sum(np.sin(rng.uniform(0.05, 0.6) * y + rng.uniform(0.05, 0.6) * x + rng.uniform(0, 6))
                    for _ in range(3))
        mask = 1 / (1 + np.exp(-4 * waves))
        y1, x1 = rng.integers(0, hw[0] - 3), rng.integers(0, hw[1] - 3)
        inside = (y >= y1) & (y < y1 + rng.integers(2, hw[0])) & (x >= x1) & (x < x1 + rng.integers(2, hw[1]))
        mask = np.where(inside, mask, 0)
        masks.append(mask > 0.5 if index % 2 else mask)
    return np.stack(masks).astype(np.float32)


def mask_size(geometry: FrameGeometry) -> tuple[int, int]:
    return geometry.padded_hw[0] // 4, geometry.padded_hw[1] // 4


def test_recorded_masks() -> None:
    data = np.load(DATA / "parts_masks.npz")
    masks = assemble_masks(data["mask_prototypes"], data["mask_coeffs"], data["mask_boxes"])
    np.testing.assert_allclose(masks, data["mask_soft"], atol=1e-6)
    np.testing.assert_array_equal(masks == 0, data["mask_soft"] == 0)  # the crop


@settings(max_examples=100)
@given(st.lists(st.tuples(*[st.floats(-1, 2, width=32)] * 4), max_size=4), st.integers(0, 99))
def test_assembly_agrees_with_the_definition(quads: list[tuple[float, ...]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    prototypes = rng.normal(size=(5, 7, 3)).astype(np.float32)
    coeffs = rng.normal(size=(len(quads), 3)).astype(np.float32)
    boxes = np.array(quads, np.float32).reshape(-1, 4)
    masks = assemble_masks(prototypes, coeffs, boxes)
    assert masks.dtype == np.float32
    np.testing.assert_allclose(masks, slow_assemble(prototypes, coeffs, boxes), atol=1e-6)


@pytest.mark.filterwarnings("error")
def test_assembly_of_extreme_values() -> None:
    prototypes = np.full((4, 4, 2), 1e3, np.float32)
    coeffs = np.array([[-9, -9], [9, 9], [0, 0], [9, 9]], np.float32)
    boxes = np.array([[0, 0, 1, 1], [-np.inf, -1e4, np.inf, 1e4], [0, 0, 1, 1], [np.nan, 0, np.nan, 1]], np.float32)
    masks = assemble_masks(prototypes, coeffs, boxes)
    assert (masks[0] == 0).all() and (masks[1] == 1).all() and (masks[2] == 0.5).all()
    assert (masks[3] == 0).all()


def test_second_tanh_pass() -> None:
    prototypes, coeffs = np.ones((2, 2, 1), np.float32), np.array([[2.0]], np.float32)
    box = np.array([[0, 0, 1, 1]], np.float32)
    twice = 1 / (1 + np.exp(-np.tanh(np.tanh(2.0))))
    np.testing.assert_allclose(assemble_masks(prototypes, coeffs, box, tanh_passes=2), twice, atol=1e-6)
    assert coeffs[0, 0] == 2


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_upsampling_equals_a_plain_resize(geometry: FrameGeometry) -> None:
    rng = np.random.default_rng(1)
    rows, columns = bilinear_axes(geometry, mask_size(geometry))
    for mask in blobs(rng, 6, mask_size(geometry)):
        plain = slow_resize(mask, geometry)
        certain = np.abs(plain - 0.5) > 1e-6  # closer than that, float32 may fall to either side
        pixels = whole(upsample_mask(mask, rows, columns), geometry.original_hw)
        np.testing.assert_array_equal(pixels[certain], plain[certain] > 0.5)
        assert certain.mean() > 0.9


@pytest.mark.parametrize("geometry", GEOMETRIES[:5], ids=str)
def test_upsampling_equals_torch(geometry: FrameGeometry) -> None:
    """Every pixel, also where a mask of 0 and 1 meets the threshold exactly: what the recorded masks were made with."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(2)
    height, width = mask_size(geometry)
    content = height * geometry.resized_hw[0] // geometry.padded_hw[0]
    masks = blobs(rng, 12, (height, width))
    resized = torch.nn.functional.interpolate(torch.from_numpy(masks[None, :, :content]), size=geometry.original_hw,
                                              mode="bilinear", align_corners=False)[0].numpy()
    rows, columns = bilinear_axes(geometry, (height, width))
    for mask, expected in zip(masks, resized, strict=True):
        np.testing.assert_array_equal(whole(upsample_mask(mask, rows, columns), geometry.original_hw), expected > 0.5)


@pytest.mark.parametrize("cells, size", [(160, 854), (160, 1920), (90, 1080), (50, 333), (160, 77)])
def test_weights_equal_torch(cells: int, size: int) -> None:
    """To the last bit: positions are rounded as there."""
    torch = pytest.importorskip("torch")
    expected = torch.nn.functional.interpolate(torch.eye(cells)[None, None], size=(cells, size), mode="bilinear",
                                               align_corners=False)[0, 0].numpy()
    axis = BilinearAxis.between(cells, cells, size)
    weights = np.zeros((cells, size), np.float32)
    np.add.at(weights, (axis.first, np.arange(size)), 1 - axis.weights)
    np.add.at(weights, (axis.second, np.arange(size)), axis.weights)
    np.testing.assert_array_equal(weights, expected)


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_patches_are_tight(geometry: FrameGeometry) -> None:
    rows, columns = bilinear_axes(geometry, mask_size(geometry))
    for mask in blobs(np.random.default_rng(3), 6, mask_size(geometry)):
        pixels = upsample_mask(mask, rows, columns).pixels
        if pixels.size:
            assert pixels[0].any() and pixels[-1].any() and pixels[:, 0].any() and pixels[:, -1].any()
        else:
            assert pixels.shape == (0, 0)


def test_padding_is_cut() -> None:
    geometry = GEOMETRIES[0]
    rows, columns = bilinear_axes(geometry, (96, 160))
    mask = np.zeros((96, 160), np.float32)
    mask[90:] = 1  # below the picture
    assert upsample_mask(mask, rows, columns).pixels.shape == (0, 0)
    mask[89] = 1
    patch = upsample_mask(mask, rows, columns)
    assert (patch.x, patch.y + len(patch.pixels), patch.pixels.shape[1]) == (0, 480, 854)


def test_mask_without_cells_above_one_half() -> None:
    rows, columns = bilinear_axes(GEOMETRIES[0], (96, 160))
    assert upsample_mask(np.full((96, 160), 0.5, np.float32), rows, columns).pixels.shape == (0, 0)


def test_full_mask() -> None:
    rows, columns = bilinear_axes(GEOMETRIES[1], (96, 160))
    patch = upsample_mask(np.ones((96, 160), np.float32), rows, columns)
    assert (patch.y, patch.x, patch.pixels.shape, patch.pixels.all()) == (0, 0, (720, 1280), True)


@given(st.integers(1, 50), st.integers(1, 200), st.data())
def test_pixels_touching_cells(num_cells: int, size: int, data: st.DataObject) -> None:
    axis = BilinearAxis.between(num_cells, data.draw(st.floats(0.1, num_cells)), size)
    start = data.draw(st.integers(0, num_cells - 1))
    stop = data.draw(st.integers(start + 1, num_cells))
    touching = [pixel for pixel in range(size)
                if start <= axis.first[pixel] < stop or start <= axis.second[pixel] < stop]
    found = axis.touching(start, stop)
    assert list(range(size))[found] == touching
