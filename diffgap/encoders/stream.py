"""Chunks through Ray Data: tasks on CPUs decode, actors on GPUs encode, with back-pressure.

Without a GPU both would compete for the same cores. Then each actor decodes what it encodes, which
saves sending audio and video from process to process.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from diffgap.corpora.base import Clip, Corpus
from diffgap.encoders import EncoderChoice
from diffgap.encoders.chunks import EmbeddingTables, InputSpec, decode_chunk, encode_chunk
from diffgap.errors import UserError

MOST_ON_CPU = 8  # encoders on CPUs unless more are requested: each holds its own copy of the model
SMALLEST_SHARE = 0.01  # of a GPU: no encoder fits into less of its memory
IN_FLIGHT = 4  # chunks queued at an encoder, so that it never waits for the scheduler
Row = dict[str, Any]  # a chunk by number, pickled: ragged windows do not fit Arrow's columns


@dataclass(frozen=True)
class EncoderPool:
    """How many encoders run, and where."""

    workers: int | None = None  # default: what fits the GPUs, else one a core up to `MOST_ON_CPU`
    gpus_per_worker: float | None = None  # default 1 where there are GPUs; several may share one
    address: str | None = None  # Ray cluster to join; else RAY_ADDRESS, else a local Ray


def stream_chunks(
    corpus: Corpus,
    choice: EncoderChoice,
    spec: InputSpec,
    chunks: Mapping[int, list[Clip]],
    pool: EncoderPool,
) -> Iterator[tuple[int, EmbeddingTables]]:
    """The tables of all chunks by number, each as soon as it is finished.

    Raises:
        UserError: where the encoders do not fit the cluster.
    """
    from diffgap.cluster.connect import cluster

    with cluster(pool.address):
        import ray

        _silence_ray_data()
        workers, gpus = place_encoders(pool)
        rows = [{"chunk": number, "clips": pickle.dumps(c)} for number, c in chunks.items()]
        # A block a chunk, so that Ray Data schedules and returns chunks one by one.
        dataset = ray.data.from_items(rows, override_num_blocks=len(rows))
        decode_row = partial(_decode_row, ray.put(corpus), spec)
        if gpus:
            dataset = dataset.map(decode_row, num_cpus=1)
        encoded = dataset.map(
            _EncoderActor,
            fn_constructor_args=(choice, spec.modalities, None if gpus else decode_row),
            compute=ray.data.ActorPoolStrategy(
                size=min(workers, len(rows)), max_tasks_in_flight_per_actor=IN_FLIGHT
            ),
            num_cpus=1,
            num_gpus=gpus,
        )
        for row in encoded.iter_rows():
            yield row["chunk"], pickle.loads(row["tables"])


def place_encoders(pool: EncoderPool) -> tuple[int, float]:
    """Number of encoders, and GPUs of each."""
    import ray

    resources = ray.cluster_resources()
    cpus, all_gpus = int(resources.get("CPU", 0)), resources.get("GPU", 0.0)
    gpus = pool.gpus_per_worker if pool.gpus_per_worker is not None else min(1.0, all_gpus)
    if 0 < gpus < SMALLEST_SHARE or (gpus > 1 and gpus != int(gpus)):
        raise UserError(
            f"--gpus-per-worker: {gpus:g} is not 0, a share of one GPU from {SMALLEST_SHARE} to 1, "
            "or a whole number; use 1, or 0.5 for two encoders on each"
        )
    # A quotient of floats may come out just below a whole number.
    capacity = int(all_gpus / gpus + 1e-9) if gpus else cpus
    workers = pool.workers or (capacity if gpus else min(cpus, MOST_ON_CPU))
    if workers > capacity or capacity == 0:
        raise UserError(
            f"--workers: {workers} encoders of {gpus:g} GPU do not fit the cluster's {cpus} CPUs "
            f"and {all_gpus:g} GPUs; give at most {capacity}, or a smaller --gpus-per-worker"
        )
    return workers, gpus


def _silence_ray_data() -> None:
    """Without Ray Data's bars and banners: the project shows its own progress."""
    import ray

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.enable_operator_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)


# In the workers ---------------------------------------------------------------------------------


def _decode_row(corpus: Any, spec: InputSpec, row: Row) -> Row:
    decoded = decode_chunk(_corpus(corpus), pickle.loads(row["clips"]), spec)
    # Protocol 5 writes arrays without copying them first.
    return {"chunk": row["chunk"], "decoded": pickle.dumps(decoded, protocol=5)}


@lru_cache(maxsize=1)
def _corpus(reference: Any) -> Corpus:
    """A corpus may hold a long index of files: fetched once a worker, not once a chunk."""
    import ray

    return ray.get(reference)


class _EncoderActor:
    """An encoder in its own process; with `decode_row` it decodes as well."""

    def __init__(
        self,
        choice: EncoderChoice,
        modalities: Sequence[str],
        decode_row: Callable[[Row], Row] | None,
    ) -> None:
        import torch

        # Actors share the cores; and another number of threads may add in another order.
        torch.set_num_threads(1)
        self._encoder = choice.load("cpu" if decode_row else "cuda")
        self._modalities, self._decode_row = modalities, decode_row

    def __call__(self, row: Row) -> Row:
        if self._decode_row:
            row = self._decode_row(row)
        tables = encode_chunk(self._encoder, pickle.loads(row["decoded"]), self._modalities)
        return {"chunk": row["chunk"], "tables": pickle.dumps(tables, protocol=5)}
