"""Where the shapes are in an anti-aliased 64x64 picture."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

PICTURE = 64
"""Side of a picture in pixels."""


def _polygon(points: list[tuple[float, float]], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Signed distance (negative inside) to a polygon given by its corners."""
    px, py = np.array(points, dtype=np.float32).T
    distance = np.full(x.shape, np.inf, dtype=np.float32)
    sign = np.ones(x.shape, dtype=np.float32)
    for i in range(len(points)):
        j = i - 1
        ex, ey = px[j] - px[i], py[j] - py[i]
        wx, wy = x - px[i], y - py[i]
        t = np.clip((wx * ex + wy * ey) / (ex * ex + ey * ey), 0, 1)
        distance = np.minimum(distance, (wx - t * ex) ** 2 + (wy - t * ey) ** 2)
        a, b, c = y >= py[i], y < py[j], ex * wy > ey * wx
        sign = np.where((a & b & c) | (~a & ~b & ~c), -sign, sign)
    return sign * np.sqrt(distance)


_TRIANGLE = [(0.0, -0.95), (1.0, 0.85), (-1.0, 0.85)]
_STAR = [
    (
        float(np.sin(k * np.pi / 5) * (1.1 if k % 2 == 0 else 0.46)),
        float(0.06 - np.cos(k * np.pi / 5) * (1.1 if k % 2 == 0 else 0.46)),
    )
    for k in range(10)
]


def signed_distance(shape: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Signed distance to a shape of half-extent 1 about the origin, y pointing down; negative inside."""
    found: np.ndarray
    if shape == "circle":
        found = np.hypot(x, y) - 1.0
    elif shape == "ring":
        found = np.abs(np.hypot(x, y) - 0.76) - 0.24
    elif shape == "square":
        found = np.maximum(np.abs(x), np.abs(y)) - 0.88
    elif shape == "cross":
        wide = np.maximum(np.abs(x) - 1.0, np.abs(y) - 0.32)
        tall = np.maximum(np.abs(x) - 0.32, np.abs(y) - 1.0)
        found = np.minimum(wide, tall)
    elif shape in ("triangle", "star"):
        found = _polygon(_TRIANGLE if shape == "triangle" else _STAR, x, y)
    else:
        raise ValueError(f"unknown shape {shape!r}")
    return found


def coverage(shape: str, x: float, y: float, radius: float, side: int = PICTURE) -> npt.NDArray[np.float32]:
    """Share of each pixel that the shape covers, (side, side) float32 in [0, 1]."""
    reach = 1.2 * radius + 1.5
    x0, x1 = max(0, int(x - reach)), min(side, int(np.ceil(x + reach)) + 1)
    y0, y1 = max(0, int(y - reach)), min(side, int(np.ceil(y + reach)) + 1)
    full = np.zeros((side, side), dtype=np.float32)
    if x0 >= x1 or y0 >= y1:
        return full
    # Two by two subpixels, each with a linear edge: smooth, and right to about 1 % of a pixel.
    grid_x = (np.arange(2 * x0, 2 * x1, dtype=np.float32) + 0.5) / 2 - x
    grid_y = (np.arange(2 * y0, 2 * y1, dtype=np.float32) + 0.5) / 2 - y
    gx, gy = np.meshgrid(grid_x / radius, grid_y / radius)
    inside = np.clip(0.5 - 2 * radius * signed_distance(shape, gx, gy), 0, 1)
    full[y0:y1, x0:x1] = inside.reshape(y1 - y0, 2, x1 - x0, 2).mean(axis=(1, 3))
    return full
