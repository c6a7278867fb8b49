"""Tests of a finished network with other warps than its own."""

import numpy as np
import pytest
import torch
from test_evaluate import HEIGHT, SETTINGS, WIDTH, data

from potgan.common.errors import UserError
from potgan.measure.generate import synthesise
from potgan.measure.interventions import flow_grids, intervened
from potgan.methods.potgan.generator import Generator
from potgan.methods.potgan.tps import normalised_grid
from potgan.settings.schema import INTERVENTIONS


def a_network(moving: bool) -> Generator:
    """A network with random weights. If it is moving, its coordinate nets depend on the masks; else every warp is the identity."""
    torch.manual_seed(0)
    generator = Generator(SETTINGS, (HEIGHT, WIDTH))
    with torch.no_grad():
        generator.decoder.image.weight *= 300  # new weights make an image that is nearly grey
    if moving:
        for net in generator.pose_transform.coordinates:
            torch.nn.init.normal_(net.points.weight, 0, 0.5)
    return generator.eval()


def images(generator: Generator, kind: str | None, **more) -> np.ndarray:
    made = synthesise(generator, data(), 2) if kind is None else intervened(generator, kind, data(), 2, **more)
    return np.stack([image for image, _ in made])


def no_flow(count: int = 5) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((count, HEIGHT, WIDTH, 2), np.float32), np.ones((count, HEIGHT, WIDTH), bool)


def test_a_network_that_moves_nothing_is_changed_by_no_intervention() -> None:
    still = a_network(moving=False)
    own = images(still, None)
    for kind in INTERVENTIONS:
        found = images(still, kind, flow=no_flow())
        assert np.abs(found.astype(int) - own).max() <= 1, kind  # the rounding of the grid to fp32


def test_each_intervention_changes_a_network_that_moves() -> None:
    moving = a_network(moving=True)
    own = images(moving, None)
    found = {kind: images(moving, kind, flow=no_flow()) for kind in INTERVENTIONS}
    for kind, changed in found.items():
        assert (np.abs(changed.astype(int) - own).reshape(len(own), -1).max(axis=1) > 2).all(), kind
    # A flow of zero and control points at rest are the same warp, said in two ways.
    assert np.abs(found["true-flow"].astype(int) - found["identity-warps"]).max() <= 1


def test_the_mean_warp_of_one_pair_is_its_own_and_warps_of_others_are_exchanged_among_pairs() -> None:
    moving, pairs = a_network(moving=True), data()
    one = type(pairs)(**{**vars(pairs), "sources": pairs.sources[:1], "targets": pairs.targets[:1]})
    own = next(iter(synthesise(moving, one, 2)))[0]
    assert np.abs(next(intervened(moving, "mean-warp", one, 2))[0].astype(int) - own).max() <= 1
    twice = type(pairs)(**{**vars(pairs), "sources": pairs.sources[[0, 0]], "targets": pairs.targets[[0, 0]]})
    assert np.abs(np.stack([i for i, _ in intervened(moving, "other-warps", twice, 1)]).astype(int) - own).max() <= 1


@pytest.mark.parametrize("shift", [(0, 0), (8, 0), (0, -16)])
def test_a_flow_grid_moves_cells_by_whole_strides(shift) -> None:
    flow, visible = no_flow(1)
    flow[:] = shift
    for scale, grid in enumerate(flow_grids(flow, visible)):
        stride = 2 ** (scale + 1)
        cells = np.array([WIDTH // stride, HEIGHT // stride])
        moved = normalised_grid(*cells[::-1]) + 2 * np.array(shift) / stride / (cells - 1)
        np.testing.assert_allclose(grid.reshape(-1, 2), moved, atol=1e-5)


def test_a_cell_follows_its_known_pixels_and_stays_where_none_is_known() -> None:
    flow, visible = no_flow(1)
    flow[:] = (99, 99)  # a value of hidden pixels, which must not count
    visible[:] = False
    visible[0, 5, 9], flow[0, 5, 9] = True, (4, -2)
    grid = flow_grids(flow, visible)[0][0]  # stride 2: pixel (9, 5) lies in cell (4, 2)
    rest = normalised_grid(HEIGHT // 2, WIDTH // 2).reshape(grid.shape)
    moved = np.abs(grid - rest).max(axis=-1) > 1e-6
    assert np.argwhere(moved).tolist() == [[2, 4]]
    np.testing.assert_allclose(
        grid[2, 4] - rest[2, 4], [2 * 2 / (WIDTH // 2 - 1), -2 * 1 / (HEIGHT // 2 - 1)], atol=1e-6
    )


def test_the_flow_of_other_pairs_is_refused() -> None:
    with pytest.raises(UserError, match="is missing; run `potgan pairs` again"):
        next(intervened(a_network(moving=False), "true-flow", data(), 2))
    with pytest.raises(UserError, match="is of 3 pairs instead of 5"):
        next(intervened(a_network(moving=False), "true-flow", data(), 2, no_flow(3)))
