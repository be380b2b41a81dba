"""What a training step of each method costs, in turn, as ratios to the deterministic bridge.

    python benchmarks/methods.py
    python benchmarks/methods.py --width 1024 --blocks 4 --dimension 512 --batch 1024

Run by hand. One round gives every method the same number of steps in a plain loop, without
DeepSpeed; ratios are taken within a round, for the machine may be busy, and the median of the
rounds is printed.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch.nn import functional as F

from diffgap.bridge.base import Bridge
from diffgap.bridge.methods import make_bridge
from diffgap.spec import Trial
from diffgap.training.trial import bridge_config

METHODS = ("deterministic", "close", "diffusion_bridge", "diffusion_link", "diffgap")
BASE = METHODS[0]


def main() -> None:
    """Measures, and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dimension", type=int, default=128)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    denoiser = {"width": options.width, "blocks": options.blocks}
    trials = [Trial(task="text-audio", seed=0, method=m, denoiser=denoiser) for m in METHODS]
    bridges = {t.method: make_bridge(bridge_config(t, options.dimension)) for t in trials}
    rounds = [
        {name: _step(bridge, options) for name, bridge in bridges.items()}
        for _ in range(options.rounds)
    ]
    print(f"{'method':18}{'ms a step':>10}{'ratio':>8}")
    for name in METHODS:
        seconds = statistics.median(found[name] for found in rounds)
        ratio = statistics.median(found[name] / found[BASE] for found in rounds)
        print(f"{name:18}{1000 * seconds:10.2f}{ratio:8.2f}")


def _step(bridge: Bridge, options: argparse.Namespace) -> float:
    """Seconds of one optimiser step, forward and backward: the mean of some."""
    optimizer = torch.optim.AdamW(bridge.parameters())
    x, a = F.normalize(torch.randn(2, options.batch, options.dimension), dim=-1)
    bridge.fit(x, a, torch.arange(options.batch))
    clip, generator = torch.arange(options.batch), torch.Generator()
    began = time.perf_counter()
    for step in range(options.steps):
        losses = bridge(bridge.batch(x, a, clip, step, generator.manual_seed(step)))
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
    return (time.perf_counter() - began) / options.steps


if __name__ == "__main__":
    main()
