"""What a generator is asked for: clips of a store, and the embedding it is given of each."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from diffgap.bridge.base import Bridge, unit
from diffgap.bridge.config import ScoreConfig
from diffgap.bridge.model import DiffGAP
from diffgap.generation.latent import noise
from diffgap.store.schema import TEXT, split_task
from diffgap.store.splits import hash_fraction
from diffgap.store.store import EmbeddingStore


@dataclass(frozen=True)
class GenerationRequest:
    """N clips of which sound is to be made.

    Attributes:
        ids: of the clips.
        captions: the text that asks, where x is text; else empty.
        queries: (N, D) unit vectors of x, of several texts of a clip the first; or (N, T, D), the
            tokens of a video.
        targets: (N, D) unit vectors of the true audio; None where there is none.
    """

    ids: tuple[str, ...]
    captions: tuple[str, ...]
    queries: np.ndarray
    targets: np.ndarray | None


def choose(store: EmbeddingStore, task: str, split: str, clips: int) -> GenerationRequest:
    """So many clips of a split, those of least hash: the same for everybody who asks.

    Raises:
        UserError: where the store does not serve the task.
    """
    pairs = store.pairs(task, split)
    chosen = sorted(range(len(pairs.ids)), key=lambda i: hash_fraction(pairs.ids[i]))[:clips]
    _, first = np.unique(pairs.owner, return_index=True)  # every clip has one
    rows = first[chosen]
    told = [text for _, text in store.caption_texts(pairs.ids)] if _of_text(task) else []
    return GenerationRequest(
        tuple(pairs.ids[i] for i in chosen),
        tuple(told[row] for row in rows) if told else (),
        pairs.x[rows],
        pairs.a[chosen],
    )


def _of_text(task: str) -> bool:
    return split_task(task)[0] == TEXT


def seeds_of(ids: tuple[str, ...], seed: int) -> list[int]:
    """A seed for the noise of each clip: the same whatever the generator is given."""
    return [zlib.crc32(f"{seed}/{name}".encode()) for name in ids]


def conditions(
    condition: str, bridge: Bridge, asked: GenerationRequest, seeds: Sequence[int]
) -> np.ndarray:
    """What a generator is given of each clip: (N, D) unit vectors, or (N, T, D).

    Args:
        condition: query, bridged (as the bridge's own score has it) or target.
        bridge: idle where the condition is another.
        asked: the N clips; for target, of a store.
        seeds: N of them, of the bridge's samples.
    """
    if condition == "query":
        return asked.queries
    if condition == "target":
        assert asked.targets is not None, "a store has the audio of its clips"
        return asked.targets
    return bridged(bridge, asked.queries, bridge.config.score, seeds)


@torch.inference_mode()
def bridged(
    bridge: Bridge, queries: np.ndarray, score: ScoreConfig, seeds: Sequence[int]
) -> np.ndarray:
    """Queries carried over to a's side: what the score compares with a's embeddings.

    The score adds ``fusion`` times the query's own cosine to that of what is carried over, which is
    the cosine of their sum.

    Args:
        bridge: with the direction from x.
        queries: (N, D) unit vectors of x, or (N, T, D): tokens are carried over each by itself.
        score: how: `sample` runs the diffusion backwards, any other kind takes the posterior mean.
        seeds: N of them: each clip's own draws of DiffGAP's samples, which would otherwise all
            start from the same noise and lean the same way.

    Returns:
        The same shape, float32 unit vectors.
    """
    rows = torch.from_numpy(queries).to(bridge.device)
    if score.kind == "sample" and isinstance(bridge, DiffGAP):
        each = (score.samples, *queries.shape[1:])
        draws = noise(seeds, each).transpose(0, 1).flatten(1, -2).to(rows)
        moved = unit(bridge.sample(rows.flatten(0, -2) * bridge.scale, 0, draws, score))
    else:
        moved = bridge.carry(bridge.space(rows.flatten(0, -2), 0), 0, score)
    moved = unit(moved + score.fusion * rows.flatten(0, -2))
    found: np.ndarray = moved.float().cpu().numpy().reshape(queries.shape)
    return found
