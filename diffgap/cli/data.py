"""Commands about data: corpora, embedding stores, and what is retrieved from them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from diffgap.cli.options import (
    ADDRESS,
    ROOT,
    SHOWN,
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

TASK = click.option(
    "--task",
    metavar="X-A",
    help="Any two modalities of the store, text first, such as text-video. Default: the first that "
    "the store serves.",
)
STORE = click.argument("store")


@click.command(short_help="Make an embedding store of a corpus.")
@click.argument("corpus")
@ROOT
@click.option(
    "--encoder", required=True, help="Frozen encoder: soundscape, laion_clap, hf_clap or cavp."
)
@click.option(
    "--checkpoint",
    help="Weights: a published name (laion_clap), a hub id (hf_clap), or a path.",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="Where the store is made; must not exist.",
)
@click.option(
    "--window",
    type=click.Choice(["crop", "mean"]),
    default="crop",
    show_default=True,
    help="Of clips longer than the encoder's window: one window, fixed by the clip's id, or the "
    "mean of all.",
)
@click.option(
    "--max-rejected",
    type=Percentage(),
    default="100%",
    show_default=True,
    help="Fail, at the end, if more of the clips cannot be used.",
)
@click.option(
    "--workers", type=click.IntRange(1), help="Encoders at once; default one a GPU, else a core."
)
@click.option(
    "--gpus-per-worker",
    type=click.FloatRange(0),
    help="Of one encoder, such as 0.5; default 1 where there are GPUs.",
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

    Decoding runs on CPUs and feeds the encoders, on GPUs where there are any. Killed and started
    again, the same command goes on with what is missing. Clips that are missing, unreadable,
    truncated or silent are listed, with the reason, in STORE/rejected.parquet, and left out.

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
        checkpoint = str(Path(checkpoint).absolute())  # workers may run elsewhere
    console = make_console()
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
            click.echo(f"error: {error}", err=True)
            sys.exit(1)
    for bad in result.rejected[:SHOWN]:
        console.print(f"left out: {bad.id} ({bad.stage}): {bad.reason}", soft_wrap=True)
    if len(result.rejected) > SHOWN:
        console.print(f"... all {len(result.rejected)} in {out}/rejected.parquet", soft_wrap=True)
    counts = ", ".join(f"{n} {split}" for split, n in result.store.manifest.corpus.counts.items())
    console.print(
        f"{out}: {counts} clips; {len(result.rejected)} left out; {result.seconds:.0f} s.",
        soft_wrap=True,
    )


@click.group(short_help="Check a corpus before it is embedded.")
def corpus() -> None:
    """Look at corpora of files.

    \b
    Example:
      diffgap corpus check audiocaps --root /data/audiocaps
    """


@corpus.command(short_help="Say what is there, missing, unreadable and twice.")
@click.argument("name", metavar="CORPUS")
@ROOT
def check(name: str, root: Path | None) -> None:
    """Decode every clip of CORPUS (folder, audiocaps or vggsound) and say what is wrong.

    Exit status: 0 all clips can be used, 1 some cannot, or are there twice.

    \b
    Examples:
      diffgap corpus check audiocaps --root /data/audiocaps
      diffgap corpus check folder --root my_sounds
    """
    from diffgap import corpora
    from diffgap.corpora.check import check_corpus

    console = make_console()
    with progress_bar(console, f"Checking {name}") as advance:
        found = check_corpus(corpora.load(name, root), advance)
    _print_bad(console, "missing", found.missing)
    _print_bad(console, "unreadable", found.unreadable)
    _print_bad(console, "bad line", found.bad_lines)
    for ids in found.duplicates[:SHOWN]:
        console.print(f"the same clip: {', '.join(ids)}", soft_wrap=True)
    for split, count in found.listed.items():
        console.print(f"{split}: {found.usable[split]} of {count} clips can be used")
    console.print(
        f"{len(found.missing)} missing, {len(found.unreadable)} unreadable, "
        f"{len(found.bad_lines)} bad lines, {len(found.duplicates)} duplicated."
    )
    sys.exit(0 if found.is_clean else 1)


@click.group(short_help="Import a store, or show what is in one.")
def store() -> None:
    """Look into embedding stores, and make them of embeddings that are there already.

    \b
    Examples:
      diffgap store import clap.npz --out my_store
      diffgap store show my_store
    """


@store.command("import", short_help="Make a store of embeddings that are there already.")
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Must not exist.")
@click.option(
    "--array",
    "arrays",
    multiple=True,
    metavar="NAME=FILE.npy",
    help="A column that is a file of its own. May be repeated.",
)
@click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="NAME=THEIRS",
    help="What SOURCE calls a column. May be repeated.",
)
@click.option("--encoder", default="imported", show_default=True, help="Name for the manifest.")
@click.option("--corpus", "corpus_name", help="Name for the manifest; default SOURCE's.")
def import_(
    source: Path,
    out: Path,
    arrays: tuple[str, ...],
    columns: tuple[str, ...],
    encoder: str,
    corpus_name: str | None,
) -> None:
    """Make a store of SOURCE: .npz, .csv with --array, Parquet, or a torch file of tensors.

    Columns: id, split, label and audio, video, one a clip; text and caption, one or several a
    clip, or with clip_id; common other names are known. Any other that you name, such as image, is
    a modality too, one vector a clip. Vectors are L2-normalised.

    \b
    Examples:
      diffgap store import clap.npz --out my_store
      diffgap store import clips.csv --array audio=audio.npy --array text=text.npy --out my_store
      diffgap store import train.parquet --column audio=clap_a --column text=clap_t --out my_store
      diffgap store import clip.npz --column image=image_embeds --out my_images
    """
    from diffgap.store.importing import import_store

    made = import_store(
        source,
        out,
        arrays={name: Path(file) for name, file in _pairs("--array", arrays).items()},
        columns=_pairs("--column", columns),
        encoder=encoder,
        corpus=corpus_name,
    )
    _describe(made, make_console())


@store.command(short_help="Print what is in a store.")
@STORE
@TASK
@click.option(
    "--picture",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also draw it into a .png, .svg or .pdf file.",
)
def show(store: str, task: str | None, picture: Path | None) -> None:
    """Print STORE's counts, its modality gap, and its clouds on two principal components.

    \b
    Examples:
      diffgap store show soundscapes
      diffgap store show soundscapes --task text-video
      diffgap store show my_store --task video-audio --picture gap.png
    """
    from diffgap.report import store_view

    console = make_console()
    opened = open_known(store, console)
    tasks = [_chosen(opened, store, task)] if task else opened.tasks
    _describe(opened, console)
    split = store_view.fullest_split(opened)
    for served in tasks:
        pairs = opened.pairs(served, split)
        console.print(store_view.gap_table(pairs, served, split))
        console.print(store_view.picture(pairs, served))
    if picture:
        chosen = _chosen(opened, store, task)
        store_view.draw(opened.pairs(chosen, split), chosen, picture)
        console.print(f"Drawn: {picture}", soft_wrap=True)


@click.command(short_help="Retrieval of a saved bridge, or of the frozen encoders, on a store.")
@click.argument("bridge", required=False, type=click.Path(path_type=Path))
@click.option("--baseline", is_flag=True, help="The frozen embeddings alone; no BRIDGE.")
@click.option("--store", required=True, help="A built-in corpus, or a store's path or URI.")
@TASK
@click.option("--split", default="test", show_default=True)
@click.option(
    "--per-class",
    type=click.IntRange(1),
    help="Only so many clips a class; 5 is CAV-MAE's protocol on VGGSound. Default: all.",
)
def evaluate(
    bridge: Path | None,
    baseline: bool,
    store: str,
    task: str | None,
    split: str,
    per_class: int | None,
) -> None:
    """Print retrieval on STORE, by the frozen embeddings and by BRIDGE, beside published numbers.

    Check a store with --baseline before anything is trained on it: the frozen encoder should be
    near its published row.

    \b
    Examples:
      diffgap evaluate --baseline --store /data/audiocaps_clap
      diffgap evaluate runs/trials/SIGNATURE/bridge --store soundscapes
      diffgap evaluate --baseline --store soundscapes --task text-video
      diffgap evaluate --baseline --store vggsound_cavp --per-class 5
    """
    if (bridge is None) != baseline:
        raise UserError("BRIDGE: give a trial's bridge directory, or --baseline, one of the two")
    from diffgap.report import evaluate as retrieval

    console = make_console()
    opened = open_known(store, console)
    task = _chosen(opened, store, task)
    pairs = retrieval.choose_pairs(opened, task, split, per_class)
    rows = [retrieval.frozen_retrieval(pairs, task)]
    if bridge:
        rows.append(retrieval.bridge_retrieval(bridge, pairs, task))
    console.print(retrieval.scores_table(rows, opened, task, split))
    for note in retrieval.retrieval_notes(rows, opened, task):
        console.print(note)


DATA_COMMANDS = (embed, corpus, store, evaluate)


def _chosen(opened: EmbeddingStore, name: str, task: str | None) -> str:
    """The task that is asked for, or the first that the store called `name` serves."""
    if task is None and opened.tasks:
        return opened.tasks[0]
    if task is None:
        raise UserError(f"store: {name} has one modality and serves no task; use one with two")
    if problem := opened.task_problem(task, name):
        raise UserError(f"--{problem}")
    return task


def _describe(opened: EmbeddingStore, console: Console) -> None:
    from diffgap.report.store_view import describe

    for line in describe(opened):
        console.print(line)


def _print_bad(console: Console, what: str, bad: Sequence[Rejected]) -> None:
    for one in bad[:SHOWN]:
        console.print(f"{what}: {one.id}: {one.reason}", soft_wrap=True)
    if len(bad) > SHOWN:
        console.print(f"... and {len(bad) - SHOWN} more {what}")


def _pairs(option: str, given: tuple[str, ...]) -> dict[str, str]:
    if wrong := [pair for pair in given if "=" not in pair]:
        raise UserError(*(f"{option}: {pair!r} is not NAME=VALUE" for pair in wrong))
    return dict(pair.split("=", 1) for pair in given)
