"""Thin-plate splines: control points -> a grid of source coordinates (Bookstein 1989; Section III-B).

The spline interpolates, from the resting control points on a regular grid in the *target*, the positions theta that the
coordinates generation net gives them in the *source*: the warp is backward, as grid sampling needs. It is linear in theta,
so one matrix, computed once in double precision, turns control points into a grid.

Coordinates are normalised to [-1, 1] with -1 and 1 the centres of the outermost cells (`align_corners=True`): pass the same
to `grid_sample`, or the identity is not the identity (docs/decisions.md, D19).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn


def resting_points(rows: int, columns: int, span: float) -> np.ndarray:
    """(rows * columns, 2) float64 (x, y): a regular grid over [-span, span]^2, row by row."""
    y, x = np.meshgrid(np.linspace(-span, span, rows), np.linspace(-span, span, columns), indexing="ij")
    return np.stack([x.ravel(), y.ravel()], axis=1)


def interpolation_matrix(points: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """The (Q, F) matrix A with: spline through (points -> values), evaluated at queries, = A @ values.

    points: (F, 2) float64, not all on a line; queries: (Q, 2). Kernel r^2 log r with an affine part; exact for affine maps,
    also outside the points' hull. Source: Bookstein 1989, Eq. (5)-(8).
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
    """(height * width, 2) float64 (x, y): the centres of the cells, row by row."""
    return resting_points(height, width, 1.0)


class ThinPlateSpline(nn.Module):
    """Control points (B, F, 2) in [-1, 1] -> grid (B, height, width, 2) of normalised source coordinates."""

    def __init__(self, rows: int, columns: int, span: float, height: int, width: int) -> None:
        super().__init__()
        self.size = (height, width)
        points = resting_points(rows, columns, span)
        matrix = interpolation_matrix(points, normalised_grid(height, width))
        self.register_buffer("matrix", torch.from_numpy(matrix).float(), persistent=False)

    def forward(self, control_points: torch.Tensor) -> torch.Tensor:
        with torch.autocast(control_points.device.type, enabled=False):  # always in fp32
            grid = self.matrix @ control_points
        return grid.view(-1, *self.size, 2)
