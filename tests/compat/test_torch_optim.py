"""Optimisers without PyTorch's compiler: the same arithmetic, without its import."""

import subprocess
import sys

import torch

from diffgap.compat import torch_optim as optim

WITHOUT = """
import sys, torch
from diffgap.compat.torch_optim import LBFGS, AdamW

weights = torch.ones(3, requires_grad=True)
for optimizer in (AdamW([{"params": [weights], "lr": 0.1}]), LBFGS(weights, max_iter=3)):
    def closure():
        optimizer.zero_grad()
        loss = weights.square().sum()
        loss.backward()
        return loss
    closure()
    optimizer.step(closure)
assert "torch._dynamo" not in sys.modules
"""


def test_a_step_imports_no_compiler():
    subprocess.run([sys.executable, "-c", WITHOUT], check=True)


def drawn():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(size, generator=generator).requires_grad_() for size in ((4, 3), (5,))]


def test_adamw_is_pytorchs_to_the_last_digit():
    ends = []
    for kind in (optim.AdamW, lambda groups: torch.optim.AdamW(groups, fused=True)):
        first, second = drawn()
        groups = [
            {"params": [first], "lr": 0.1, "weight_decay": 0.2},
            {"params": [second], "lr": 0.01, "weight_decay": 0.0},
        ]
        optimizer = kind(groups)
        for _ in range(5):
            (first.square().sum() + (second**4).sum()).backward()
            optimizer.step()
            optimizer.zero_grad()
        assert first.grad is None
        ends.append((first, second))
    for ours, theirs in zip(*ends, strict=True):
        assert ours.equal(theirs)


def test_lbfgs_is_pytorchs_to_the_last_digit():
    ends = []
    for kind in (optim.LBFGS, None):
        (weights, _) = drawn()
        optimizer = (
            kind(weights, 20)
            if kind
            else torch.optim.LBFGS([weights], max_iter=20, line_search_fn="strong_wolfe")
        )

        def closure(weights=weights):
            weights.grad = None
            loss = (weights - 1).pow(4).sum() + weights.square().sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        ends.append(weights)
    assert ends[0].equal(ends[1])
    assert not ends[0].equal(drawn()[0])
