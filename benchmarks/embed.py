"""How close embedding comes to its slower stage: decoding alone, encoding alone, the pipeline.

    python benchmarks/embed.py --root my_sounds
    python benchmarks/embed.py --root my_sounds --encoder cavp --checkpoint cavp_epoch66.ckpt

Without --encoder it is CLAP at its published size (HTSAT-tiny, RoBERTa-base) with random weights.
Each stage alone has every worker to itself. With GPUs the stages run on different chips, and the
pipeline can reach the slower one; on CPUs they share the cores, and it cannot exceed
1 / (1/decoding + 1/encoding), which is printed too. Starts are not counted: stages alone begin with
warm workers, and the pipeline's rate is what a long run does more than a short one, over the time
it takes more. Medians of several rounds, one of each kind in turn.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import click
import ray

from diffgap import corpora
from diffgap.cluster.connect import cluster
from diffgap.corpora.base import Clip, Corpus
from diffgap.encoders import EncoderChoice
from diffgap.encoders.chunks import InputSpec, decode_chunk, encode_chunk
from diffgap.encoders.embed import CHUNK
from diffgap.encoders.stream import EncoderPool, place_encoders, stream_chunks

Chunks = dict[int, list[Clip]]


class Alone:
    """A worker that does one stage only."""

    def __init__(self, corpus: Corpus, choice: EncoderChoice, spec: InputSpec, device: str) -> None:
        import torch

        torch.set_num_threads(1)
        self._corpus, self._spec = corpus, spec
        self._encoder = choice.load(device)
        self._decoded = None

    def decode(self, clips: list[Clip]) -> None:
        decode_chunk(self._corpus, clips, self._spec)

    def encode(self, clips: list[Clip]) -> None:
        """Always the first chunk it was given, decoded once."""
        if self._decoded is None:
            self._decoded = decode_chunk(self._corpus, clips, self._spec)
        encode_chunk(self._encoder, self._decoded, self._spec.modalities)


def random_clap(folder: Path, words: list[str]) -> EncoderChoice:
    """CLAP of the published size with random weights, and a tokenizer of these words."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, RobertaTokenizer

    trainer = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer.train_from_iterator(words, vocab_size=2000, special_tokens=special)
    trainer.save_model(str(folder))
    RobertaTokenizer.from_pretrained(folder).save_pretrained(folder)
    ClapFeatureExtractor(truncation="rand_trunc", frequency_min=50).save_pretrained(folder)
    ClapModel(ClapConfig()).save_pretrained(folder)
    return EncoderChoice("hf_clap", str(folder))


def seconds(run: Iterable[object]) -> float:
    """What it takes to exhaust a run."""
    began = time.monotonic()
    for _ in run:
        pass
    return time.monotonic() - began


def one_stage(workers: list, stage: str, chunks: Chunks) -> Iterator[None]:
    """Every worker always busy, until all chunks are finished."""
    waiting = list(chunks.values())
    busy = {}
    while busy or waiting:
        idle = [worker for worker in workers if worker not in busy.values()]
        for worker in idle[: len(waiting)]:
            busy[getattr(worker, stage).remote(waiting.pop())] = worker
        (done,), _ = ray.wait(list(busy))
        del busy[done]
        yield ray.get(done)


def measure(
    corpus: Corpus, choice: EncoderChoice, clips: int, rounds: int, pool: EncoderPool
) -> None:
    encoder = choice.load()
    modalities = tuple(m for m in corpus.modalities if m in encoder.modalities)
    spec = InputSpec.of(encoder, modalities, "crop")
    listed = corpus.clips()[:clips]
    chunks = {i: listed[i * CHUNK : (i + 1) * CHUNK] for i in range(len(listed) // CHUNK)}
    with cluster(pool.address):
        count, gpus = place_encoders(pool)

        def alone(stage: str, workers: int, gpu: float) -> float:
            actor = ray.remote(num_cpus=1, num_gpus=gpu)(Alone)
            device = "cuda" if gpu else "cpu"
            made = [actor.remote(corpus, choice, spec, device) for _ in range(workers)]
            ray.get([getattr(worker, stage).remote(chunks[0]) for worker in made])
            took = seconds(one_stage(made, stage, chunks))
            for worker in made:
                ray.kill(worker)
            return len(chunks) * CHUNK / took

        def pipeline() -> float:
            short = {n: chunks[n] for n in range(count)}
            took = [seconds(stream_chunks(corpus, choice, spec, c, pool)) for c in (short, chunks)]
            return (len(chunks) - count) * CHUNK / (took[1] - took[0])

        cpus = int(ray.cluster_resources()["CPU"]) if gpus else count
        kinds = {
            "decoding alone": partial(alone, "decode", cpus, 0),
            "encoding alone": partial(alone, "encode", count, gpus),
            "pipeline": pipeline,
        }
        rates: dict[str, list[float]] = {kind: [] for kind in kinds}
        for _ in range(rounds):
            for kind, run in kinds.items():
                rates[kind].append(run())
                print(f"  {kind:15} {rates[kind][-1]:8.1f} clips/s", flush=True)
    medians = {kind: statistics.median(found) for kind, found in rates.items()}
    slower = min(medians["decoding alone"], medians["encoding alone"])
    print(f"\n{count} workers, {gpus:g} GPU each; {len(chunks) * CHUNK} clips, {rounds} rounds")
    for kind, found in medians.items():
        low, high = min(rates[kind]), max(rates[kind])
        print(f"{kind:15} {found:8.1f} clips/s (median; {low:.1f} to {high:.1f})")
    print(f"pipeline / slower stage alone: {medians['pipeline'] / slower:.2f}")
    if not gpus:
        both = 1 / (1 / medians["decoding alone"] + 1 / medians["encoding alone"])
        print(f"pipeline / what shared cores allow ({both:.1f}): {medians['pipeline'] / both:.2f}")


@click.command()
@click.option("--corpus", "name", default="folder", show_default=True)
@click.option("--root", type=click.Path(exists=True, path_type=Path))
@click.option("--encoder", help="Default: CLAP with random weights.")
@click.option("--checkpoint")
@click.option("--clips", default=256, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--workers", type=int)
@click.option("--gpus-per-worker", type=float)
def main(
    name: str,
    root: Path | None,
    encoder: str | None,
    checkpoint: str | None,
    clips: int,
    rounds: int,
    workers: int | None,
    gpus_per_worker: float | None,
) -> None:
    """Print clips a second of decoding alone, encoding alone and the whole pipeline."""
    corpus = corpora.load(name, root)
    with tempfile.TemporaryDirectory() as folder:
        captions = [caption for clip in corpus.clips() for caption in clip.captions]
        choice = (
            EncoderChoice(encoder, checkpoint) if encoder else random_clap(Path(folder), captions)
        )
        measure(corpus, choice, clips, rounds, EncoderPool(workers, gpus_per_worker))


if __name__ == "__main__":
    main()
