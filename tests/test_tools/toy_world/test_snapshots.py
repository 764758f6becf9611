"""A training that goes on from its snapshot."""

import pytest
import torch
from torch import nn

from tests.tools.toy_world.diffusion import schedule
from tests.tools.toy_world.snapshots import SNAPSHOT_STEPS, Snapshot


def training(path, parameter):
    """An optimiser of one parameter, its learning rate and the snapshot of both."""
    optimiser = torch.optim.AdamW([parameter], 1e-2)
    lr = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: schedule(step, 2 * SNAPSHOT_STEPS))
    return optimiser, lr, Snapshot(path, [parameter], {"optimiser": optimiser, "lr": lr}, {})


def test_a_snapshot_of_any_step_can_be_read_and_the_learning_rate_goes_on(tmp_path):
    parameter = nn.Parameter(torch.zeros(3))
    optimiser, lr, snapshot = training(tmp_path / "snapshot.pt", parameter)
    for step in range(SNAPSHOT_STEPS):
        parameter.grad = torch.ones(3)
        optimiser.step()
        lr.step()
        snapshot.after(step + 1)
    other = nn.Parameter(torch.zeros(3))
    _, resumed, kept = training(tmp_path / "snapshot.pt", other)
    assert kept.restore() == SNAPSHOT_STEPS
    assert torch.equal(other, parameter)
    assert resumed.get_last_lr() == lr.get_last_lr()


def test_the_learning_rate_warms_up_and_falls_to_a_hundredth():
    assert [schedule(step, 1000) for step in (0, 99, 199, 200)] == pytest.approx([0.005, 0.5, 1.0, 1.0])
    assert schedule(600, 1000) == pytest.approx((1 + 0.01) / 2)
    assert schedule(1000, 1000) == pytest.approx(0.01)
