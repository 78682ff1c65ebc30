"""Operators that export treats as single nodes: deformable convolution, correlation, RoIAlign."""
from .correlation import correlation
from .deform_conv import deform_conv2d
from .roi_align import roi_align

__all__ = ["correlation", "deform_conv2d", "roi_align"]
