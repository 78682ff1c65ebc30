"""Types of the arrays exchanged by the parts of the generator."""
from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Floats = NDArray[np.float32]
Points = NDArray[np.float64]  # (k, 2) xy
