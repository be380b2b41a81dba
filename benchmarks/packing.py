"""What packs save: K trials packed, warm one by one, each a Ray Train job, and in a plain loop.

Each a Ray Train job: tuned as far as that goes (`apart`), and with Ray's defaults (`simple`, see
`simple_way.py`), two at once as the others.

    python benchmarks/packing.py                      # 32 trials of 50 steps
    python benchmarks/packing.py --steps 1500 --score rerank --rounds 1 --ways packed plain

Trials are the ablation's CDM + BST with K seeds, on the embedded corpus (built before, by any
sweep). The plain loop is one process with PyTorch alone: no Ray, DeepSpeed, MLflow, ledger or
checkpoints, and a thread for each core. Times are from the command to its end.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from statistics import median

import common
from simple_way import simple_seconds

WAYS = {"packed": "auto", "warm": "1", "apart": "off"}
"""What is measured, and the `resources.pack` that it is."""

SIMPLE, PLAIN = "simple", "plain"
EVERY = (*WAYS, SIMPLE, PLAIN)


def sets(options: argparse.Namespace) -> list[str]:
    """The overrides of the ablation's spec."""
    return [
        "name=packing",
        "axes={}",
        f"seeds={options.trials}",
        f"trial.train.steps={options.steps}",
        f"trial.score.kind={options.score}",
    ]


def ways(options: argparse.Namespace) -> dict[str, Callable[[], float]]:
    """How to measure each way, in seconds."""

    def swept(pack: str) -> Callable[[], float]:
        return lambda: common.sweep_seconds(*sets(options), f"resources.pack={pack}")

    found = {name: swept(pack) for name, pack in WAYS.items()}
    return {
        **found,
        SIMPLE: lambda: simple_seconds(*sets(options), at_once=2),
        PLAIN: lambda: plain_seconds(options),
    }


def plain_seconds(options: argparse.Namespace) -> float:
    """The plain loop in a process of its own."""
    command = [sys.executable, __file__, "--inside", "--trials", str(options.trials)]
    command += ["--steps", str(options.steps), "--score", options.score]
    return list(common.timed_lines(command, OMP_NUM_THREADS=""))[-1][0]


def plain_loop(options: argparse.Namespace) -> None:
    """Trains and scores the same trials with PyTorch alone."""
    import torch

    from diffgap.bridge.methods import make_bridge
    from diffgap.encoders.builtin import open_store
    from diffgap.evaluation.evaluate import evaluate
    from diffgap.spec import load_sweep
    from diffgap.training.data import PairTable
    from diffgap.training.engine import lr_factor
    from diffgap.training.trial import VALIDATION_SCORE, bridge_config

    spec = load_sweep(common.SPEC, sets(options), known_stores=lambda name: None)
    store = open_store(spec.store)
    train, val, test = (store.pairs(spec.task, split) for split in ("train", "val", "test"))
    for trial in spec.trials():
        torch.manual_seed(trial.seed)
        bridge, settings = make_bridge(bridge_config(trial, train.x.shape[1])), trial.train
        table = PairTable(train, settings.batch_size, trial.seed, torch.device("cpu"))
        parameters = list(bridge.parameters())
        average = [p.detach().clone() for p in parameters]
        adam = torch.optim.AdamW(
            parameters, settings.lr, weight_decay=settings.weight_decay, fused=True
        )
        for step in range(settings.steps):
            adam.param_groups[0]["lr"] = settings.lr * lr_factor(settings, step)
            losses = bridge(bridge.batch(*table.batch(step), step, table.generator_at(step)))
            losses.total.backward()
            torch.nn.utils.clip_grad_norm_(parameters, settings.gradient_clipping)
            adam.step()
            adam.zero_grad()
            decay = min(settings.ema, (step + 1) / (step + 10))
            with torch.no_grad():
                torch._foreach_lerp_(average, [p.detach() for p in parameters], 1 - decay)
            if (step + 1) % settings.epoch_steps == 0 or step + 1 == settings.steps:
                evaluate(bridge, val, VALIDATION_SCORE)
        with torch.no_grad():
            torch._foreach_copy_([p.detach() for p in parameters], average)
        print(evaluate(bridge, test).metrics["text_to_audio/R5"])


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--trials", type=int, default=32)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--score", default="bridge", choices=("bridge", "rerank"))
    parser.add_argument("--ways", nargs="+", default=EVERY, choices=EVERY)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        plain_loop(options)
        return
    measure = {name: way for name, way in ways(options).items() if name in options.ways}
    rounds = []
    for number in range(options.rounds):
        rounds.append({name: way() for name, way in measure.items()})
        print(f"round {number + 1}: {rounds[-1]}", file=sys.stderr)
    base = options.ways[0]
    rows = [
        {
            "way": name,
            "seconds": common.spread([found[name] for found in rounds], 1),
            "a trial": round(median(found[name] for found in rounds) / options.trials, 2),
            f"over {base}": common.spread([found[name] / found[base] for found in rounds]),
        }
        for name in measure
    ]
    title = f"{options.trials} trials of {options.steps} steps, scored by {options.score}"
    common.show(title, rows, options.json)


if __name__ == "__main__":
    main()
