"""Outlines and textures: classes that can be told apart by shape, surfaces that do not give the class away."""
from __future__ import annotations

import cv2
import numpy as np
import pytest

from stmask_deploy.synthetic.outlines import CLASSES, class_outline, clutter_outline
from stmask_deploy.synthetic.sprites import Pose, bounds, coverage, fill
from stmask_deploy.synthetic.textures import TEXTURES, paint, random_palette


def silhouette(outline: np.ndarray, side: float = 100, angle: float = 0) -> np.ndarray:
    canvas = np.zeros((200, 200), np.uint8)
    fill(canvas, Pose(99.5, 99.5, side, angle).place(outline))
    return canvas


def turned_moments(name: str, seed: int) -> np.ndarray:
    """Hu's seven moments, which rotation and size leave alone, on a logarithmic scale."""
    rng = np.random.default_rng(seed)
    moments = cv2.HuMoments(cv2.moments(silhouette(class_outline(name, rng), 120, rng.uniform(0, 6)), True)).ravel()
    return np.sign(moments) * np.log10(np.abs(moments) + 1e-12)


@pytest.mark.parametrize("name", CLASSES)
def test_outlines_are_one_solid_piece_of_the_right_size(name: str) -> None:
    for seed in range(20):
        outline = class_outline(name, np.random.default_rng(seed))
        np.testing.assert_allclose((outline.max(axis=0) + outline.min(axis=0)) / 2, 0, atol=1e-9)
        assert np.abs(outline).max() == pytest.approx(1)
        mask = silhouette(outline)
        contours, holes = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        assert len(contours) == 1 and (holes[0, :, 3] < 0).all()
        # The filled area is the polygon's: it does not cross itself.
        area = cv2.contourArea((outline * 50).astype(np.float32))
        assert (mask > 0).sum() == pytest.approx(area, rel=0.1)
        assert area > 0.2 * 100 * 100


def test_no_two_objects_of_a_class_are_the_same() -> None:
    rng = np.random.default_rng(0)
    for name in CLASSES:
        assert class_outline(name, rng).tolist() != class_outline(name, rng).tolist()


def test_classes_can_be_told_by_shape_under_any_rotation() -> None:
    # The nearest of ten examples a class, by moments alone; chance is one in six.
    known = [(name, turned_moments(name, seed)) for name in CLASSES for seed in range(10)]
    hits = [min(known, key=lambda one: float(np.abs(one[1][:4] - moments[:4]).sum()))[0] == name
            for name in CLASSES for seed in range(100, 110) for moments in [turned_moments(name, seed)]]
    assert np.mean(hits) > 0.8


def test_clutter_is_convex_or_nearly_so() -> None:
    # Stars, hearts, moons, crosses and fish are not; triangles have less area for their hull's size.
    for seed in range(40):
        outline = clutter_outline(np.random.default_rng(seed)).astype(np.float32)
        area, hull = cv2.contourArea(outline), cv2.contourArea(cv2.convexHull(outline))
        _, (width, height), _ = cv2.minAreaRect(outline)
        assert area > 0.9 * hull
        assert area > 0.65 * width * height


def test_coverage_is_the_share_of_a_pixel() -> None:
    square = np.array([[1.25, 1.0], [4.5, 1.0], [4.5, 3.5], [1.25, 3.5]])
    rect = bounds(square, 10, 10)
    assert rect is not None
    found = np.zeros((10, 10))
    found[rect.slices] = coverage(square, rect) / 255
    columns = np.array([0, 0.25, 1, 1, 1, 0, 0, 0, 0, 0])
    rows = np.array([0, 0.5, 1, 1, 0, 0, 0, 0, 0, 0])
    # OpenCV fills up to and with the samples that an edge touches: an eighth of a pixel a side, at most two.
    assert np.abs(found - np.outer(rows, columns)).max() <= 0.26
    assert found.sum() == pytest.approx(3.25 * 2.5, rel=0.2)


def test_bounds_of_what_is_outside() -> None:
    square = np.array([[0.0, 0], [5, 0], [5, 5], [0, 5]])
    assert bounds(square + [20, 0], 10, 10) is None
    assert bounds(square - [0, 7], 10, 10) is None
    assert bounds(square - [0, 7], 10, 10, margin=3) is not None


@pytest.mark.parametrize("kind", TEXTURES)
def test_textures_are_textured(kind: str) -> None:
    rng = np.random.default_rng(1)
    colors = np.array([[20, 40, 200], [240, 220, 30], [0, 0, 0]], np.float32)
    surface = paint(kind, rng, 60, 90, colors)
    assert surface.shape == (60, 90, 3)
    assert 0 <= surface.min() and surface.max() <= 255
    assert surface.std(axis=(0, 1)).min() > 15


def test_palettes_vary() -> None:
    palettes = [random_palette(np.random.default_rng(seed)) for seed in range(10)]
    assert all(palette.shape == (5, 3) and palette.min() >= 0 and palette.max() <= 255 for palette in palettes)
    assert len({palette.tobytes() for palette in palettes}) == 10
