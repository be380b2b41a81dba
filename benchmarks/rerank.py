"""What re-ranking costs: 1,000 queries x top 50 at the embedded corpus's sizes, and the floor.

    python benchmarks/rerank.py
    python benchmarks/rerank.py --queries 200 --rounds 5

Run by hand. Prints the time of the re-rank, the time of the same number of multiplications in one
plain matrix product (what this machine can do at best), and their ratio: medians of some rounds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch.nn import functional as F

from diffgap.bridge.config import BridgeConfig, ScoreConfig
from diffgap.bridge.model import DiffGAP
from diffgap.bridge.scores import Scorer

DIMENSION, WIDTH, BLOCKS, TOP = 128, 256, 3, 50


def main() -> None:
    """Measures, and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    bridge = DiffGAP(BridgeConfig(("text", "audio"), DIMENSION, WIDTH, BLOCKS, True, True)).eval()
    x, a = F.normalize(torch.randn(2, options.queries, DIMENSION), dim=-1)
    score = ScoreConfig("rerank", top_k=TOP)
    scorer = Scorer(bridge, x, a, score)

    def rerank() -> None:
        for start in range(0, len(x), scorer.queries_at_once):
            scorer.scores(start, min(start + scorer.queries_at_once, len(x)), from_x=True)

    terms = len(score.levels) * len(bridge.directions)
    rows = options.queries * TOP * terms
    operations = 2 * rows * multiplications()
    seconds = _median(rerank, options.rounds)
    floor = _median(lambda: _product(rows), options.rounds)
    print(f"{options.queries} queries x top {TOP}, {terms} terms: {rows:,} denoisings")
    print(f"re-rank   {seconds:6.2f} s   {operations / seconds / 1e9:6.1f} GFLOP/s")
    print(f"floor     {floor:6.2f} s   {operations / floor / 1e9:6.1f} GFLOP/s")
    print(f"re-rank over floor {seconds / floor:.2f}")


def multiplications() -> int:
    """Multiplications of one denoising, without its modulation, which candidates share."""
    return 3 * DIMENSION * WIDTH + BLOCKS * 2 * WIDTH * WIDTH + WIDTH * DIMENSION


def _product(rows: int) -> None:
    """Matrix products of the same size as the hidden layers', and as many multiplications."""
    chunk = 2048
    left, right = torch.randn(chunk, WIDTH), torch.randn(WIDTH, WIDTH)
    for _ in range(round(rows * multiplications() / (chunk * WIDTH * WIDTH))):
        left @ right


def _median(run: Callable[[], None], rounds: int) -> float:
    def timed() -> float:
        began = time.perf_counter()
        run()
        return time.perf_counter() - began

    return statistics.median(timed() for _ in range(rounds))


if __name__ == "__main__":
    main()
