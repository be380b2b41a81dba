"""A training that goes wrong says at which step, with which loss, and what is likely to blame."""

import pytest
import torch

from diffgap.bridge.config import BridgeConfig, Objective
from diffgap.spec import Train
from diffgap.training.checkpoint import HistoryPoint
from diffgap.training.divergence import DivergedError, check_losses


def config(**objective):
    return BridgeConfig(
        ("text", "audio"), 16, 32, 2, cdm=True, bst=True, objective=Objective(**objective)
    )


def check(losses, first=0, history=(), objective=None, **train):
    steps = range(first, first + len(losses))
    past = [HistoryPoint(i + 1, {"train/loss": loss}) for i, loss in enumerate(history)]
    check_losses(torch.tensor(losses), steps, past, config(**(objective or {})), Train(**train))


def test_a_healthy_training_passes():
    check([2.0, 1.5, 1.2, 1.9])
    check([0.1, 90.0], first=100, history=[1.0] * 100)  # a bad batch is no explosion


def test_nan_is_told_with_step_and_loss():
    with pytest.raises(
        DivergedError, match=r"^step 102: the loss is nan; likely train\.lr 0\.5 is"
    ):
        check([1.0, 1.0, float("nan")], first=100, history=[1.0] * 100, lr=0.5)


def test_an_explosion_is_told_before_it_is_nan():
    with pytest.raises(
        DivergedError, match=r"^step 31: the loss is 5000, 5e\+03 times the initial one"
    ):
        check([1.0, 5000.0], first=30, history=[1.0] * 30)


@pytest.mark.parametrize(
    ("losses", "objective", "train", "cause"),
    [
        ([float("inf")], {"condition_noise": 1e30}, {}, "loss.condition_noise 1e\\+30 drowns"),
        ([float("nan")], {}, {}, "from the first step: check the store"),
        ([1.0, float("nan")], {"weight": "snr"}, {}, "snr grows without bound .* use min_snr"),
        ([1.0, float("nan")], {}, {"gradient_clipping": 0}, "set train.gradient_clipping 1"),
    ],
)
def test_the_likely_cause_comes_first(losses, objective, train, cause):
    with pytest.raises(DivergedError, match=cause):
        check(losses, objective=objective, **train)
