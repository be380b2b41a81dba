"""Clips that a generator is asked for, and the embeddings that condition it."""

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
    """N clips to generate sound for.

    Attributes:
        ids: of the clips.
        captions: the texts that the queries encode, or names of the videos; else empty.
        queries: (N, D) unit vectors of x, the first where a clip has several texts; or (N, T, D),
            the tokens of a video.
        targets: (N, D) unit vectors of the true audio; None where there is none.
    """

    ids: tuple[str, ...]
    captions: tuple[str, ...]
    queries: np.ndarray
    targets: np.ndarray | None


def store_request(store: EmbeddingStore, task: str, split: str, clips: int) -> GenerationRequest:
    """So many clips of a split of a store.

    Raises:
        UserError: where the store does not serve the task.
    """
    pairs = store.pairs(task, split)
    # Those of least hash: the same for every trial and machine, and fewer clips are the first of
    # more, so that generators are compared on the same sounds.
    by_hash = sorted(range(len(pairs.ids)), key=lambda i: hash_fraction(pairs.ids[i]))
    clip_rows = by_hash[:clips]
    _, first_texts = np.unique(pairs.owner, return_index=True)  # every clip has at least one
    query_rows = first_texts[clip_rows]
    ids = tuple(pairs.ids[row] for row in clip_rows)
    captions: tuple[str, ...] = ()
    if split_task(task)[0] == TEXT:
        texts = store.caption_texts(pairs.ids)
        captions = tuple(texts[row][1] for row in query_rows)
    return GenerationRequest(ids, captions, pairs.x[query_rows], pairs.a[clip_rows])


def noise_seeds(ids: Sequence[str], seed: int) -> list[int]:
    """A seed for each clip's noise, whatever the generator is conditioned on."""
    # Noise in common makes two conditions' clips differ by their conditions alone.
    return [zlib.crc32(f"{seed}/{name}".encode()) for name in ids]


def conditions(
    condition: str, bridge: Bridge, request: GenerationRequest, seeds: Sequence[int]
) -> np.ndarray:
    """The embedding that conditions each clip: (N, D) unit vectors, or (N, T, D).

    Args:
        condition: query, bridged (as the bridge's own score has it) or target.
        bridge: unused unless the condition is bridged.
        request: the N clips; for target, of a store.
        seeds: N of them, of the bridge's samples.
    """
    if condition == "query":
        return request.queries
    if condition == "target":
        assert request.targets is not None, "a store has the audio of its clips"
        return request.targets
    return bridged_queries(bridge, request.queries, bridge.config.score, seeds)


@torch.inference_mode()
def bridged_queries(
    bridge: Bridge, queries: np.ndarray, score: ScoreConfig, seeds: Sequence[int]
) -> np.ndarray:
    """Queries carried over to a's side: what the score compares with a's embeddings.

    Args:
        bridge: with the direction from x.
        queries: (N, D) unit vectors of x, or (N, T, D); each token is carried over by itself.
        score: `sample` runs the diffusion backwards, any other kind takes the posterior mean.
        seeds: N of them, for DiffGAP's samples.

    Returns:
        The same shape, float32 unit vectors.
    """
    rows = torch.from_numpy(queries).to(bridge.device).flatten(0, -2)
    if score.kind == "sample" and isinstance(bridge, DiffGAP):
        # Noise of its own for each clip: from one noise all samples would lean the same way.
        shape = (score.samples, *queries.shape[1:])
        draws = noise(seeds, shape).transpose(0, 1).flatten(1, -2).to(rows)
        carried = unit(bridge.sample(rows * bridge.scale, 0, draws, score))
    else:
        carried = bridge.carry(bridge.space(rows, 0), 0, score)
    # The score adds `fusion` times the query's own cosine, and a sum of cosines with one vector is
    # the cosine with the sum, up to its length.
    fused = unit(carried + score.fusion * rows)
    embeddings: np.ndarray = fused.float().cpu().numpy().reshape(queries.shape)
    return embeddings
