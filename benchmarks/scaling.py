"""How cost grows: with trials, steps, training pairs, the gallery and workers.

    python benchmarks/scaling.py

Each row doubles one thing and says how many times as long it then takes; 2.0 is linear. Trials
and steps are those of sweeps, less the time of a sweep that is half as large once more, so that
what any sweep costs (Ray, MLflow) is not counted. Workers share the batch out on the same cores:
1.0 would be free.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import common

SETS = ["name=scaling", "axes={}", "trial.score.kind=bridge"]


def sweep(trials: int, steps: int, *more: str) -> float:
    """Seconds of a sweep."""
    sets = (*SETS, f"seeds={trials}", f"trial.train.steps={steps}", *more)
    return common.sweep_seconds(*sets, options=("--max-concurrent", "1"))


def growth(sizes: tuple[int, int, int], measure: Callable[[int], float]) -> float:
    """How many times as long the larger half takes: ``(t(3n) - t(n)) / (t(2n) - t(n))``."""
    small, middle, large = (measure(size) for size in sizes)
    return (large - small) / (middle - small)


def retrieval_seconds(gallery: int, dimension: int = 512) -> float:
    """Seconds of ranking so many texts against a gallery, and back."""
    import torch

    from diffgap.bridge.config import ScoreConfig
    from diffgap.bridge.methods import make_bridge
    from diffgap.evaluation.evaluate import evaluate
    from diffgap.spec import Trial
    from diffgap.store.store import Pairs
    from diffgap.training.trial import bridge_config

    generator = torch.Generator().manual_seed(0)

    def unit(rows: int) -> torch.Tensor:
        drawn = torch.randn(rows, dimension, generator=generator)
        return torch.nn.functional.normalize(drawn, dim=-1)

    trial = Trial.model_validate({"task": "text-audio", "seed": 0, "method": "none"})
    bridge = make_bridge(bridge_config(trial, dimension))
    owner = torch.arange(gallery)
    ids = tuple(map(str, range(gallery)))
    made = Pairs(ids, unit(gallery).numpy(), unit(gallery).numpy(), owner.numpy())
    began = time.perf_counter()
    evaluate(bridge, made, ScoreConfig("cosine"))
    return time.perf_counter() - began


def one_round(options: argparse.Namespace) -> dict[str, float]:
    """The growth of each thing."""
    trials, steps = options.trials, options.steps
    once, twice = (retrieval_seconds(size) for size in (options.gallery, 2 * options.gallery))
    one, two = (sweep(2, steps, f"resources.workers={workers}") for workers in (1, 2))
    return {
        "trials": growth((trials, 2 * trials, 3 * trials), lambda n: sweep(n, steps)),
        "steps": growth((steps, 2 * steps, 3 * steps), lambda n: sweep(trials, n)),
        "gallery x gallery (4.0 is linear)": twice / once,
        "2 workers over 1": two / one,
    }


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--gallery", type=int, default=4000)
    options = parser.parse_args()
    rounds = [one_round(options) for _ in range(options.rounds)]
    rows = [{"doubled": n, "times": common.spread([r[n] for r in rounds])} for n in rounds[0]]
    common.show("What doubling costs", rows, options.json)


if __name__ == "__main__":
    main()
