"""What evaluating a bridge costs over what its arithmetic costs: recall, and the re-rank.

    python benchmarks/retrieval.py
    python benchmarks/retrieval.py --size 5000 --queries 300 --json

Run by hand, on the GPU if there is one. Recall is all ranks of N x N scores at D = 512, one
direction at a time and both of pairs at once, against one direction's products in the same chunks
with a plain top 10, and against FAISS's flat index where it is installed. The re-rank is that of
1,000 queries at the embedded corpus's sizes, with nothing known beforehand, against the denoiser's
forward passes alone: as many, in the same chunks, with inputs and modulations at hand. Both of a
ratio are taken within a round, in turn.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from importlib.util import find_spec

import psutil
import torch
from common import Row, arguments, show, spread
from torch import Tensor
from torch.nn import functional as F

from diffgap.bridge.config import BridgeConfig, ScoreConfig
from diffgap.bridge.methods import make_bridge
from diffgap.bridge.model import DiffGAP
from diffgap.bridge.reranking import PAIRS
from diffgap.bridge.scores import Scorer
from diffgap.evaluation.evaluate import TILE
from diffgap.evaluation.retrieval import ranks_of_captions, ranks_of_owner, ranks_of_pairs, summary
from diffgap.training.context import local_device

Run = Callable[[], object]

DIMENSION, TOP = 512, 10
"""Of recall."""

MODALITIES = ("text", "audio")
RERANK = BridgeConfig(MODALITIES, dimension=128, width=256, blocks=2, cdm=True, bst=True)
"""The embedded corpus's size, and the denoiser of its sweeps."""


def main() -> None:
    """Measures, and prints."""
    parser = arguments(__doc__)
    parser.add_argument("--size", type=int, default=20_000, help="N (default %(default)s)")
    parser.add_argument("--queries", type=int, default=1000, help="re-ranked (default %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="(default %(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    device = local_device()
    rows = [*recall_rows(options, device), rerank_row(options, device)]
    title = (
        f"Retrieval on {device.type}, {options.threads} threads: recall of {options.size:,} x "
        f"{options.size:,} at D = {DIMENSION}, re-rank of {options.queries:,} queries"
    )
    show(title, rows, options.json)


def recall_rows(options: argparse.Namespace, device: torch.device) -> Iterator[Row]:
    """Both directions of recall, with one caption a clip, and the peak of their memory."""
    x, a = vectors(options.size, DIMENSION, device)
    frozen = BridgeConfig(MODALITIES, DIMENSION, 0, 0, cdm=False, bst=False, method="none")
    scorer = Scorer(make_bridge(frozen), x, a, ScoreConfig("cosine"))
    owner, chunk = torch.arange(options.size, device=device), scorer.queries_at_once
    from_x, from_a = (partial(scorer.scores, from_x=side) for side in (True, False))
    runs: dict[str, Run] = {
        "x->a": lambda: summary(ranks_of_owner(from_x, owner, chunk)),
        "a->x": lambda: summary(ranks_of_captions(from_a, owner, options.size, chunk)),
        "of pairs, both": lambda: ranks_of_pairs(scorer.tile, options.size, TILE),
    }
    floors: dict[str, Run] = {"product and top 10": lambda: bare(x, a, chunk)}
    if device.type == "cpu" and find_spec("faiss"):
        floors["FAISS flat"] = lambda: faiss_flat(x, a, options.threads)
    peak = peak_mib(lambda: [run() for run in runs.values()], device)
    for direction, run in runs.items():
        for floor, bare_run in floors.items():
            found = measured(f"recall {direction}", run, floor, bare_run, options.rounds)
            yield {**found, "peak MiB": peak}
    if device.type == "cpu" and "FAISS flat" not in floors:
        print("FAISS is not installed: not measured", file=sys.stderr)


def rerank_row(options: argparse.Namespace, device: torch.device) -> Row:
    """The re-rank of as many queries as there are candidates."""
    bridge = DiffGAP(RERANK).eval().to(device)
    x, a = vectors(options.queries, RERANK.dimension, device)
    score = ScoreConfig("rerank")

    def rerank() -> None:
        scorer = Scorer(bridge, x, a, score)
        for start in range(0, len(x), scorer.queries_at_once):
            scorer.scores(start, min(start + scorer.queries_at_once, len(x)), from_x=True)

    pairs = options.queries * score.top_k
    denoisings = pairs * len(score.levels) * len(bridge.directions)
    name = f"re-rank, {denoisings:,} denoisings"
    floor = partial(forward_passes, bridge, denoisings, device)
    return {**measured(name, rerank, "forward passes", floor, options.rounds), "peak MiB": ""}


@torch.inference_mode()
def bare(x: Tensor, a: Tensor, chunk: int) -> None:
    """The products that recall needs, and the least that can be done with them."""
    for rows in x.split(chunk):
        (rows @ a.T).topk(TOP, dim=1)


def faiss_flat(x: Tensor, a: Tensor, threads: int) -> None:
    """FAISS's exact search by inner product."""
    faiss = import_module("faiss")
    faiss.omp_set_num_threads(threads)
    index = faiss.IndexFlatIP(a.shape[1])
    index.add(a.numpy())
    index.search(x.numpy(), TOP)


@torch.inference_mode()
def forward_passes(bridge: DiffGAP, denoisings: int, device: torch.device) -> None:
    """So many denoisings, in the re-rank's chunks, of the same inputs over and over."""
    chunk = PAIRS[device.type]
    noisy, condition = vectors(chunk, bridge.config.dimension, device)
    modulation = bridge.modulation(condition, 0, torch.zeros((), device=device))
    for _ in range(round(denoisings / chunk)):
        bridge.denoiser.denoise(noisy, modulation)


def vectors(count: int, dimension: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Two sides of random unit vectors."""
    x, a = (F.normalize(torch.randn(count, dimension, device=device), dim=-1) for _ in range(2))
    return x, a


def measured(name: str, run: Run, floor: str, bare_run: Run, rounds: int) -> dict[str, object]:
    """A row: medians of rounds, and of the ratios within them."""
    run(), bare_run()
    taken = [(seconds(run), seconds(bare_run)) for _ in range(rounds)]
    return {
        "what": name,
        "seconds": spread(own for own, _ in taken),
        "floor": floor,
        "its seconds": spread(bare for _, bare in taken),
        "ratio": spread(own / bare for own, bare in taken),
    }


def seconds(run: Run) -> float:
    """How long a run takes, to the end of what it started on the GPU."""
    synchronise()
    began = time.perf_counter()
    run()
    synchronise()
    return time.perf_counter() - began


def peak_mib(run: Run, device: torch.device) -> int:
    """Memory that a first run takes at most, above what was there before."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return (torch.cuda.max_memory_allocated() - before) >> 20
    before = psutil.Process().memory_info().rss
    run()
    return (1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 20


def synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
