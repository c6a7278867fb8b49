"""Thin-plate splines: control points -> a grid of source coordinates (Bookstein 1989; Section III-B).

The control points rest on a regular grid in the *target*. The coordinates generation net gives each of them a position theta in
the *source*, and the spline interpolates between these positions. So the warp is backward, as grid sampling needs. The spline
is linear in theta, so one matrix turns control points into a grid. The matrix is computed once, in double precision.

Coordinates are normalised to [-1, 1], where -1 and 1 are the centres of the outermost cells (`align_corners=True`). Pass
`align_corners=True` to `grid_sample` too. Otherwise the identity warp moves the image (docs/decisions.md, D19).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn


def resting_points(rows: int, columns: int, span: float) -> np.ndarray:
    """Return (rows * columns, 2) float64 (x, y): the points of a regular grid over [-span, span]^2, row by row."""
    y, x = np.meshgrid(np.linspace(-span, span, rows), np.linspace(-span, span, columns), indexing="ij")
    return np.stack([x.ravel(), y.ravel()], axis=1)


def interpolation_matrix(points: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Return the (Q, F) matrix A for which A @ values is the spline through (points -> values), evaluated at the queries.

    points: (F, 2) float64, not all on one line. queries: (Q, 2). The kernel is r^2 log r, and there is an affine part. So the
    spline is exact for affine maps, also outside the convex hull of the points. Source: Bookstein 1989, Eq. (5)-(8).
    """

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        squared = ((a[:, None] - b[None]) ** 2).sum(axis=2)
        return 0.5 * squared * np.log(np.where(squared > 0, squared, 1))

    count = len(points)
    affine = np.column_stack([np.ones(count), points])
    system = np.zeros((count + 3, count + 3))
    system[:count, :count] = kernel(points, points)
    system[:count, count:] = affine
    system[count:, :count] = affine.T
    basis = np.column_stack([kernel(queries, points), np.ones(len(queries)), queries])
    return basis @ np.linalg.inv(system)[:, :count]


def normalised_grid(height: int, width: int) -> np.ndarray:
    """Return (height * width, 2) float64 (x, y): the centres of the cells, row by row."""
    return resting_points(height, width, 1.0)


class ThinPlateSpline(nn.Module):
    """Maps control points (B, F, 2) in [-1, 1] to a grid (B, height, width, 2) of normalised source coordinates."""

    def __init__(self, rows: int, columns: int, span: float, height: int, width: int) -> None:
        super().__init__()
        self.size = (height, width)
        points = resting_points(rows, columns, span)
        matrix = interpolation_matrix(points, normalised_grid(height, width))
        self.register_buffer("matrix", torch.from_numpy(matrix).float(), persistent=False)

    def forward(self, control_points: torch.Tensor) -> torch.Tensor:
        with torch.autocast(control_points.device.type, enabled=False):  # coordinates are always in fp32
            grid = self.matrix @ control_points
        return grid.view(-1, *self.size, 2)
