"""Chunks through Ray Data: tasks on CPUs decode, actors on GPUs encode, back-pressure in between.

Without a GPU both would share the same cores: then each actor decodes what it encodes, which saves
sending the sound and pictures from process to process.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from diffgap.corpora.base import Clip, Corpus
from diffgap.encoders import EncoderChoice
from diffgap.encoders.chunks import DecodingRecipe, Tables, decode, encode
from diffgap.errors import UserError

MOST_ON_CPU = 8
"""Encoders on CPUs unless asked for more: each holds its own copy of the model."""

IN_FLIGHT = 4
"""Chunks waiting at an encoder, so that it never waits for the scheduler."""


@dataclass(frozen=True)
class Pool:
    """What encodes."""

    workers: int | None = None
    """Encoders at once; default as many as the GPUs hold, else one a core, up to `MOST_ON_CPU`."""
    gpus_per_worker: float | None = None
    """Default 1 where the cluster has GPUs; a fraction lets several encoders share one."""
    address: str | None = None
    """Ray cluster to join; else RAY_ADDRESS, else a local Ray."""


def stream(
    corpus: Corpus,
    choice: EncoderChoice,
    recipe: DecodingRecipe,
    chunks: Mapping[int, list[Clip]],
    pool: Pool,
) -> Iterator[tuple[int, Tables]]:
    """The tables of all chunks, each as soon as it is finished.

    Raises:
        UserError: where the cluster cannot hold the encoders.
    """
    from diffgap.cluster.connect import cluster

    with cluster(pool.address):
        import ray

        _be_quiet()
        workers, gpus = place_encoders(pool)
        rows = [{"chunk": n, "clips": pickle.dumps(clips)} for n, clips in chunks.items()]
        dataset = ray.data.from_items(rows, override_num_blocks=len(rows))
        reading = partial(_decode, ray.put(corpus), recipe)
        if gpus:
            dataset = dataset.map(reading, num_cpus=1)
        encoded = dataset.map(
            _Encoding,
            fn_constructor_args=(choice, recipe.modalities, None if gpus else reading),
            compute=ray.data.ActorPoolStrategy(
                size=min(workers, len(rows)), max_tasks_in_flight_per_actor=IN_FLIGHT
            ),
            num_cpus=1,
            num_gpus=gpus,
        )
        for row in encoded.iter_rows():
            yield row["chunk"], pickle.loads(row["tables"])


def place_encoders(pool: Pool) -> tuple[int, float]:
    """How many encoders, and GPUs of each."""
    import ray

    held = ray.cluster_resources()
    cpus, all_gpus = int(held.get("CPU", 0)), held.get("GPU", 0.0)
    gpus = pool.gpus_per_worker if pool.gpus_per_worker is not None else min(1.0, all_gpus)
    fit = int(all_gpus / gpus + 1e-9) if gpus else cpus
    workers = pool.workers or (fit if gpus else min(cpus, MOST_ON_CPU))
    if workers > fit or fit == 0:
        raise UserError(
            f"--workers: {workers} encoders of {gpus:g} GPU do not fit the cluster's {cpus} CPUs "
            f"and {all_gpus:g} GPUs; give at most {fit}, or a smaller --gpus-per-worker"
        )
    return workers, gpus


def _be_quiet() -> None:
    """Ray Data's bars and banners: the project shows its own progress."""
    import ray

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.enable_operator_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)


# In the workers ---------------------------------------------------------------------------------


def _decode(corpus: Any, recipe: DecodingRecipe, row: dict[str, Any]) -> dict[str, Any]:
    decoded = decode(_corpus(corpus), pickle.loads(row["clips"]), recipe)
    return {"chunk": row["chunk"], "decoded": pickle.dumps(decoded, protocol=5)}


@lru_cache(maxsize=1)
def _corpus(reference: Any) -> Corpus:
    """A corpus may hold a long index of files: once a worker, not once a chunk."""
    import ray

    corpus: Corpus = ray.get(reference)
    return corpus


class _Encoding:
    """An encoder in its own process; with `reading` it decodes as well."""

    def __init__(
        self,
        choice: EncoderChoice,
        modalities: tuple[str, ...],
        reading: Callable[[dict[str, Any]], dict[str, Any]] | None,
    ) -> None:
        import torch

        torch.set_num_threads(1)
        self._encoder = choice.load("cpu" if reading else "cuda")
        self._modalities, self._reading = modalities, reading

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        decoded = pickle.loads((self._reading(row) if self._reading else row)["decoded"])
        tables = encode(self._encoder, decoded, self._modalities)
        return {"chunk": row["chunk"], "tables": pickle.dumps(tables, protocol=5)}
