"""Commands for data: corpora, embedding stores, and retrieval on a store."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from diffgap.cli.boundary import echo
from diffgap.cli.options import (
    ADDRESS,
    ROOT,
    FiniteRange,
    Percentage,
    make_console,
    open_known,
    progress_bar,
)
from diffgap.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from diffgap.corpora.base import Rejected
    from diffgap.store.store import EmbeddingStore

MAX_LISTED = 20
"""Bad clips that are printed; `embed` writes all of them to a file."""

TASK = click.option(
    "--task",
    metavar="X-A",
    help="Two modalities of the store, such as text-video; default the first task it serves.",
)
OUT = click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="The new store's directory."
)


@click.command(short_help="Make an embedding store from a corpus.")
@click.argument("corpus")
@ROOT
@click.option("--encoder", required=True, help="soundscape, laion_clap, hf_clap or cavp.")
@click.option("--checkpoint", help="The encoder's weights: a published name, hub id or path.")
@OUT
@click.option(
    "--window",
    type=click.Choice(["crop", "mean"]),
    default="crop",
    show_default=True,
    help="For clips longer than the encoder's window: one window, chosen by the clip's id, or the "
    "mean of all.",
)
@click.option(
    "--max-rejected",
    type=Percentage(),
    default="100%",
    show_default=True,
    help="Fail at the end if a larger share of the clips is unusable.",
)
@click.option("--workers", type=click.IntRange(1), help="Default one per GPU, else one per core.")
@click.option(
    "--gpus-per-worker", type=FiniteRange(0), help="Default 1 where there are GPUs, else 0."
)
@ADDRESS
def embed(
    corpus: str,
    root: Path | None,
    encoder: str,
    checkpoint: str | None,
    out: Path,
    window: str,
    max_rejected: float,
    workers: int | None,
    gpus_per_worker: float | None,
    address: str | None,
) -> None:
    """Encode CORPUS (folder, audiocaps, vggsound or soundscapes) into an embedding store.

    Clips are decoded on CPUs and encoded on GPUs, where there are any. After a crash, the same
    command resumes where it stopped. Clips that are missing, unreadable, truncated or silent are
    left out, and listed with the reason in STORE/rejected.parquet.

    \b
    Examples:
      diffgap embed folder --root my_sounds --encoder soundscape --out my_store
      diffgap embed audiocaps --root /data/audiocaps --encoder hf_clap --out audiocaps_clap
      diffgap embed audiocaps --root /data/audiocaps --encoder laion_clap \\
          --checkpoint 630k-best --gpus-per-worker 0.5 --max-rejected 5% --out audiocaps_clap
      diffgap embed vggsound --root /data/vggsound --encoder cavp \\
          --checkpoint cavp_epoch66.ckpt --window mean --out vggsound_cavp
    """
    from diffgap import corpora
    from diffgap.encoders import EncoderChoice
    from diffgap.encoders.embed import TooManyRejectedError
    from diffgap.encoders.embed import embed as run
    from diffgap.encoders.stream import EncoderPool

    if checkpoint and Path(checkpoint).exists():
        checkpoint = str(Path(checkpoint).absolute())  # workers have other working directories
    console = make_console(outlives_output=True)
    with progress_bar(console, f"Embedding {corpus}") as advance:
        try:
            result = run(
                corpora.load(corpus, root),
                EncoderChoice(encoder, checkpoint),
                out,
                long_clips=window,
                max_rejected=max_rejected,
                pool=EncoderPool(workers, gpus_per_worker, address),
                progress=advance,
            )
        except TooManyRejectedError as error:
            echo(f"error: {error}", err=True)
            sys.exit(1)
    for clip in result.rejected[:MAX_LISTED]:
        console.print(f"left out: {clip.id} ({clip.stage}): {clip.reason}", soft_wrap=True)
    rejected = len(result.rejected)
    if rejected > MAX_LISTED:
        console.print(f"... all {rejected} in {out}/rejected.parquet", soft_wrap=True)
    counts = ", ".join(f"{n} {split}" for split, n in result.store.manifest.corpus.counts.items())
    summary = f"{out}: {counts} clips; {rejected} left out; {result.seconds:.0f} s."
    console.print(summary, soft_wrap=True)
    _warn_of_empty_splits(result.store)


@click.group(short_help="Check a corpus before embedding it.")
def corpus() -> None:
    """Check corpora of audio and video files.

    \b
    Example:
      diffgap corpus check audiocaps --root /data/audiocaps
    """


@corpus.command(short_help="List usable, missing, unreadable and duplicated clips.")
@click.argument("name", metavar="CORPUS")
@ROOT
def check(name: str, root: Path | None) -> None:
    """Decode every clip of CORPUS (folder, audiocaps or vggsound) and list the problems.

    Exit status: 0 all clips are usable, 1 some are unusable or duplicated.

    \b
    Examples:
      diffgap corpus check audiocaps --root /data/audiocaps
      diffgap corpus check folder --root my_sounds
    """
    from diffgap import corpora
    from diffgap.corpora.check import check_corpus

    console = make_console()
    with progress_bar(console, f"Checking {name}") as advance:
        result = check_corpus(corpora.load(name, root), advance)
    _print_bad(console, "missing", result.missing)
    _print_bad(console, "unreadable", result.unreadable)
    _print_bad(console, "bad line", result.bad_lines)
    for ids in result.duplicates[:MAX_LISTED]:
        console.print(f"the same clip: {', '.join(ids)}", soft_wrap=True)
    for split, count in result.listed.items():
        console.print(f"{split}: {result.usable[split]} of {count} clips are usable")
    console.print(
        f"{len(result.missing)} missing, {len(result.unreadable)} unreadable, "
        f"{len(result.bad_lines)} bad lines, {len(result.duplicates)} duplicated."
    )
    sys.exit(0 if result.is_clean else 1)


@click.group(short_help="Import an embedding store, or show one.")
def store() -> None:
    """Show embedding stores, and make them from existing embeddings.

    \b
    Examples:
      diffgap store import clap.npz --out my_store
      diffgap store show my_store
    """


@store.command("import", short_help="Make a store from existing embeddings.")
@click.argument("source", type=click.Path(path_type=Path))
@OUT
@click.option(
    "--array", "arrays", multiple=True, metavar="NAME=FILE.npy", help="A column in its own file."
)
@click.option(
    "--column", "columns", multiple=True, metavar="NAME=THEIRS", help="SOURCE's name of a column."
)
@click.option("--encoder", default="imported", show_default=True, help="Name for the manifest.")
@click.option("--corpus", "corpus_name", help="Name for the manifest; default that of SOURCE.")
def import_(
    source: Path,
    out: Path,
    arrays: tuple[str, ...],
    columns: tuple[str, ...],
    encoder: str,
    corpus_name: str | None,
) -> None:
    """Make a store from SOURCE: .npz, .csv with --array, .parquet, or .pt with named tensors.

    Columns with one row per clip: id, split, label, audio, video. text and caption: one or several
    per clip, or any number with clip_id. Common other names are recognised. Any other column that
    you name, such as image, is a further modality. Vectors are L2-normalised.

    \b
    Examples:
      diffgap store import clap.npz --out my_store
      diffgap store import clips.csv --array audio=audio.npy --array text=text.npy --out my_store
      diffgap store import train.parquet --column audio=clap_a --column text=clap_t --out my_store
      diffgap store import clip.npz --column image=image_embeds --out my_images
    """
    from diffgap.report.store_view import describe
    from diffgap.store.importing import import_store

    imported = import_store(
        source,
        out,
        arrays={name: Path(file) for name, file in _parse_pairs("--array", arrays).items()},
        columns=_parse_pairs("--column", columns),
        encoder=encoder,
        corpus=corpus_name,
    )
    console = make_console()
    for line in describe(imported):
        console.print(line)
    _warn_of_empty_splits(imported)


@store.command(short_help="Print counts and modality gap of a store.")
@click.argument("store")
@TASK
@click.option(
    "--picture",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also draw the clouds to a .png, .svg or .pdf file.",
)
def show(store: str, task: str | None, picture: Path | None) -> None:
    """Print STORE's counts, its modality gap, and its points on two principal components.

    \b
    Examples:
      diffgap store show soundscapes
      diffgap store show soundscapes --task text-video
      diffgap store show my_store --task video-audio --picture gap.png
    """
    from diffgap.report import store_view

    console = make_console()
    opened = open_known(store, console)
    tasks = [_choose_task(opened, store, task)] if task else opened.tasks
    for line in store_view.describe(opened):
        console.print(line)
    split = store_view.fullest_split(opened)
    for served in tasks:
        pairs = opened.pairs(served, split)
        console.print(store_view.gap_table(pairs, served, split))
        console.print(store_view.picture(pairs, served))
    if picture:
        task = _choose_task(opened, store, task)
        store_view.draw(opened.pairs(task, split), task, picture)
        console.print(f"Drawn: {picture}", soft_wrap=True)


@click.command(short_help="Evaluate retrieval of a bridge or the frozen encoders.")
@click.argument("bridge", required=False, type=click.Path(path_type=Path))
@click.option("--baseline", is_flag=True, help="Only the frozen embeddings; no BRIDGE.")
@click.option("--store", required=True, help="A built-in corpus, or a store's path or URI.")
@TASK
@click.option("--split", default="test", show_default=True)
@click.option(
    "--per-class",
    type=click.IntRange(1),
    help="At most so many clips per class (CAV-MAE on VGGSound: 5); default all.",
)
def evaluate(
    bridge: Path | None,
    baseline: bool,
    store: str,
    task: str | None,
    split: str,
    per_class: int | None,
) -> None:
    """Print retrieval on STORE with the frozen embeddings and BRIDGE, beside published numbers.

    Check a store with --baseline before training on it: the frozen encoder should be close to its
    published row.

    \b
    Examples:
      diffgap evaluate --baseline --store /data/audiocaps_clap
      diffgap evaluate runs/trials/SIGNATURE/bridge --store soundscapes
      diffgap evaluate --baseline --store soundscapes --task text-video
      diffgap evaluate --baseline --store vggsound_cavp --per-class 5
    """
    if (bridge is None) != baseline:
        raise UserError("BRIDGE: give either a trial's bridge directory or --baseline")
    from diffgap.report import evaluate as retrieval
    from diffgap.report.formats import print_tables

    console = make_console()
    opened = open_known(store, console)
    task = _choose_task(opened, store, task)
    pairs = retrieval.choose_pairs(opened, task, split, per_class)
    rows = [retrieval.frozen_retrieval(pairs, task)]
    if bridge:
        rows.append(retrieval.bridge_retrieval(bridge, opened, pairs, task))
    print_tables([retrieval.scores_table(rows, opened, task, split)], console)


DATA_COMMANDS = (embed, corpus, store, evaluate)


def _warn_of_empty_splits(store: EmbeddingStore) -> None:
    """Says which tasks a new store has, but no sweep can be run on."""
    tasks_by_splits: dict[str, list[str]] = {}
    for task in store.tasks:
        if empty := store.empty_splits(task):
            tasks_by_splits.setdefault(" and ".join(empty), []).append(task)
    for splits, tasks in tasks_by_splits.items():
        echo(
            f"warning: no clip for {', '.join(tasks)} in {splits}; a sweep needs clips in train, "
            "val and test: add some, or say which clips are in which in a column split",
            err=True,
        )


def _choose_task(opened: EmbeddingStore, name: str, task: str | None) -> str:
    """The requested task, or the first that the store called `name` serves."""
    if task is None and opened.tasks:
        return opened.tasks[0]
    if task is None:
        raise UserError(f"store: {name} has one modality; use a store with two")
    if problem := opened.task_problem(task, name):
        raise UserError(f"--{problem}")
    return task


def _print_bad(console: Console, label: str, clips: Sequence[Rejected]) -> None:
    for clip in clips[:MAX_LISTED]:
        console.print(f"{label}: {clip.id}: {clip.reason}", soft_wrap=True)
    if len(clips) > MAX_LISTED:
        console.print(f"... and {len(clips) - MAX_LISTED} more {label}")


def _parse_pairs(option: str, arguments: tuple[str, ...]) -> dict[str, str]:
    problems = [f"{option}: {pair!r} is not NAME=VALUE" for pair in arguments if "=" not in pair]
    if problems:
        raise UserError(*problems)
    return dict(pair.split("=", 1) for pair in arguments)
