"""Law and twin: where the grids begin, and what each scale adds."""

import numpy as np
import pytest
import torch

from atlaskit.measure.boxes import coarse_grain
from atlaskit.measure.fractal import generalized_dimensions
from atlaskit.measure.grids import grid_shifts, without_each_scale
from atlaskit.measure.support import causal, full, uniform


def slope(boxes):
    return generalized_dimensions(boxes, (1.0, 2.0)).slope


def heads(n, *, sharpness=1.0):
    scores = torch.randn(3, n, n, generator=torch.Generator().manual_seed(n), dtype=torch.float64) * sharpness
    return scores.masked_fill(~causal(n), float("-inf")).softmax(-1)


def by_hand(fine, sizes, shift):
    """D_1 and D_2 of one head from its finest grid, every cell put into its shifted box by hand."""
    points = []
    for size in sizes:
        box = (np.arange(len(fine)) + shift) // (len(fine) // size)
        mass = np.zeros((box[-1] + 1, box[-1] + 1))
        np.add.at(mass, (box[:, None], box), fine)
        held = mass[mass > 0]
        points.append([-(held * np.log2(held)).sum(), -np.log2((held**2).sum())])
    return np.polyfit(np.log2(sizes), np.array(points), 1)[0]


@pytest.mark.parametrize("n", [64, 100])
def test_shifted_grids_equal_boxes_filled_by_hand(n):
    boxes = coarse_grain(heads(n))
    assert boxes.usable.all()
    ignorant = coarse_grain(uniform(causal(n)).double(), like=boxes)
    found = grid_shifts(slope, boxes, ignorant)
    assert len(found) == boxes.sizes[-1] // 2
    torch.testing.assert_close(found[0], slope(boxes))
    even = ignorant.masses[-1][0].numpy()
    for shift, slopes in enumerate(found):
        edges = by_hand(even, boxes.sizes, shift) - by_hand(even, boxes.sizes, 0)
        expected = [by_hand(head.numpy(), boxes.sizes, shift) - edges for head in boxes.masses[-1]]
        np.testing.assert_allclose(slopes.numpy(), np.array(expected), atol=1e-6)


@pytest.mark.parametrize("support", [causal(100), full(128)])
def test_moving_the_grid_leaves_ignorance_alone_and_a_cascade_nearly(support):
    boxes = coarse_grain(uniform(support))
    torch.testing.assert_close(grid_shifts(slope, boxes, boxes), slope(boxes).expand(boxes.sizes[-1] // 2, -1, -1))
    cells = torch.ones(1, 1)
    for _ in range(7):
        cells = torch.kron(cells, torch.tensor([[0.8, 0.2], [0.2, 0.8]]))
    boxes = coarse_grain(cells[None])
    found = grid_shifts(slope, boxes, coarse_grain(uniform(full(128)), like=boxes))
    assert (found - slope(boxes)).abs().max() < 0.06


def test_every_shift_keeps_all_mass_and_the_diagonal():
    boxes = coarse_grain(torch.cat([torch.eye(96)[None], uniform(causal(96))]))

    def check(moved):
        for mass in moved.masses:
            torch.testing.assert_close(mass.sum((1, 2)), torch.ones(2))
            assert (mass[0] - mass[0].diag().diag() == 0).all()
        return slope(moved)

    grid_shifts(check, boxes, boxes)


def test_no_scale_of_a_cascade_is_needed_and_three_are():
    cells = torch.ones(1, 1, dtype=torch.float64)
    for _ in range(7):
        cells = torch.kron(cells, torch.tensor([[0.8, 0.2], [0.2, 0.8]], dtype=torch.float64))
    boxes = coarse_grain(torch.cat([cells[None], torch.eye(128, dtype=torch.float64)[None]]))
    assert boxes.usable.sum(1).tolist() == [5, 3]
    found = without_each_scale(slope, boxes)
    torch.testing.assert_close(found[:, 0], slope(boxes)[0].expand(5, 2))
    assert found[:3, 1].isnan().all()  # of three scales two are left
    torch.testing.assert_close(found[3:, 1], slope(boxes)[1].expand(2, 2))
