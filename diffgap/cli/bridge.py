"""Commands for a trained bridge: bridge files, search a store, write a folder to share."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diffgap.cli.boundary import echo
from diffgap.cli.options import make_console, open_known, progress_bar
from diffgap.errors import UserError
from diffgap.io.json_text import json_text
from diffgap.io.printable import one_line

if TYPE_CHECKING:
    from rich.table import Table

    from diffgap.apply import Hit, Query
    from diffgap.bridge.base import Bridge
    from diffgap.store.store import EmbeddingStore

BRIDGE = click.argument("bridge", type=click.Path(path_type=Path))
SPLIT = click.option(
    "--split",
    type=click.Choice(["train", "val", "test"]),
    default="test",
    show_default=True,
    help="Split of the store.",
)


@click.command("bridge", short_help="Carry embeddings from a file or store over the gap.")
@BRIDGE
@click.argument("source_file", metavar="IN")
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--from", "source", help="Modality of IN; default the source of BRIDGE.")
@click.option("--array", help="Array or column of IN; default the modality's, or the only one.")
@SPLIT
def bridge_(
    bridge: Path, source_file: str, out: Path, source: str | None, array: str | None, split: str
) -> None:
    """Carry the embeddings in IN over to BRIDGE's other modality and write them to OUT.

    IN is a .npy, .npz, .parquet, .pt or .pth file of (N, D) embeddings from the frozen encoder
    that BRIDGE was trained on; OUT is the same file with bridged unit vectors in their place. Rows
    are L2-normalised first. Or IN is an embedding store, and OUT a .parquet file of ids and
    vectors. A method without a network (center, mean_shift) maps them to its own space.

    \b
    Examples:
      diffgap bridge runs/trials/SIGNATURE/bridge texts.npy audio_like.npy
      diffgap bridge runs/trials/SIGNATURE/bridge clap.npz bridged.npz --from audio
      diffgap bridge runs/trials/SIGNATURE/bridge t.parquet b.parquet --array text_embedding
      diffgap bridge runs/trials/SIGNATURE/bridge soundscapes bridged.parquet --split val
    """
    from diffgap.apply import carry_over
    from diffgap.bridge.methods import load_bridge
    from diffgap.io.atomic import new_file
    from diffgap.store.embedding_files import read_embeddings, read_store, unit_rows

    _check_out(source_file, out)
    loaded = load_bridge(bridge)
    source = _choose_source(loaded, source)
    console = make_console()
    if not _is_store(source_file):
        embeddings = read_embeddings(Path(source_file), source, array)
    elif array:
        raise UserError("--array: is for files; choose the vectors of a store with --from")
    else:
        store = open_known(source_file, console)
        embeddings = read_store(store, loaded.config.modalities, source, split)
    values, normalised = unit_rows(embeddings.values, loaded.config.dimension)
    if normalised:
        note = f"{source_file}: rows were not unit vectors and have been L2-normalised."
        console.print(note, soft_wrap=True)
    with progress_bar(console, f"Bridging {source_file}", "rows") as advance:
        bridged = carry_over(loaded, values, source, advance)
    with new_file(out) as temporary:
        embeddings.write(temporary, bridged)
    console.print(f"{out}: {_summary(loaded, source, len(bridged))}.", soft_wrap=True)


@click.command(short_help="Search a store's clips by text or by clip.")
@BRIDGE
@click.argument("queries", nargs=-1, metavar="[TEXT]...")
@click.option("--store", required=True, help="A built-in corpus, or a store's path or URI.")
@click.option("--clip", "clips", multiple=True, metavar="ID", help="A clip as the query.")
@click.option("--from", "source", help="Modality of --clip; default the one that is not text.")
@SPLIT
@click.option("--top", default=10, show_default=True, type=click.IntRange(1), help="Hits a query.")
@click.option("--checkpoint", help="Weights of the store's encoder, as in: diffgap embed.")
@click.option(
    "--format", "style", type=click.Choice(["table", "json"]), default="table", show_default=True
)
def retrieve(
    bridge: Path,
    queries: tuple[str, ...],
    store: str,
    clips: tuple[str, ...],
    source: str | None,
    split: str,
    top: int,
    checkpoint: str | None,
    style: str,
) -> None:
    """Rank STORE's clips for each TEXT, by the score that BRIDGE was evaluated with.

    Texts are encoded by the store's own frozen encoder, with the same weights that made the store.
    --clip needs no encoder: a clip's audio retrieves texts, or its video retrieves audio.

    \b
    Examples:
      diffgap retrieve runs/trials/SIGNATURE/bridge --store soundscapes "a dog barks in the rain"
      diffgap retrieve runs/trials/SIGNATURE/bridge --store audiocaps_clap "a dog" "rain" \\
          --checkpoint 630k-audioset-best --top 5
      diffgap retrieve runs/trials/SIGNATURE/bridge --store soundscapes --clip CLIP_ID
      diffgap retrieve BRIDGE --store soundscapes "a dog barks" --format json
    """
    if not queries and not clips:
        raise UserError("TEXT: missing; give one or more, in quotes, or --clip ID")
    from diffgap.apply import Gallery, clip_queries, text_queries
    from diffgap.bridge.methods import load_bridge
    from diffgap.pretrained.choice import UNKNOWN_HASH

    console = make_console(stderr=style == "json")  # beside JSON on standard output
    loaded = load_bridge(bridge)
    opened = open_known(store, console)
    gallery = Gallery(opened, loaded, split)
    search_queries = text_queries(opened, loaded, queries, checkpoint) if queries else []
    for clip in clips:
        search_queries += clip_queries(opened, loaded, clip, source)
    if queries and opened.manifest.encoder.checkpoint_hash == UNKNOWN_HASH:
        console.print("The store does not record its weights; with others, hits are meaningless.")
    results = gallery.search(search_queries, top)
    if style == "json":
        echo(json_text([_as_json(*result) for result in results], indent=2))
        return
    for query, hits in results:
        console.print(_table(query, hits, f"{store}, {split}"))


@click.command(short_help="Write a bridge and its model card to a folder to share.")
@BRIDGE
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--store", help="The store that BRIDGE was trained on, for the encoder's name.")
@click.option("--name", help="Name of the model; default that of FOLDER.")
@click.option("--license", "licence", help="License of the weights; default apache-2.0.")
def push(
    bridge: Path, folder: Path, store: str | None, name: str | None, licence: str | None
) -> None:
    """Write BRIDGE and a model card to FOLDER, ready for a hub or git; nothing is uploaded.

    The card is made from the config and metrics of the trial. FOLDER may be a clone of a hub
    repository: bridge.safetensors, config.json, metrics.json and README.md are replaced, all else
    is left alone. A README.md that diffgap did not write is refused.

    \b
    Examples:
      diffgap push runs/trials/SIGNATURE/bridge my_bridge --store soundscapes
      diffgap push runs/trials/SIGNATURE/bridge my_bridge --name text-audio --license cc-by-4.0
      hf upload USER/my_bridge my_bridge
    """
    from diffgap.bridge.files import read_facts
    from diffgap.bridge.methods import load_bridge

    console = make_console()
    loaded = load_bridge(bridge).cpu()
    facts = read_facts(bridge)
    if store:
        facts["encoder"] = _encoder_facts(open_known(store, console), store, facts)
    if name:
        facts["name"] = name
    if licence:
        facts["license"] = licence
    try:
        loaded.push(folder, facts=facts)
    except ValueError as error:
        raise UserError(f"FOLDER: {error}; give another folder") from None
    names = ", ".join(sorted(path.name for path in folder.iterdir()))
    console.print(f"{folder}: {names}", soft_wrap=True)
    if "encoder" not in facts:
        console.print("The card does not name the encoder; add it with --store STORE.")


BRIDGE_COMMANDS = (bridge_, retrieve, push)


def _is_store(name: str) -> bool:
    from diffgap.corpora import BUILTIN

    return "://" in name or Path(name).is_dir() or (name in BUILTIN and not Path(name).exists())


def _check_out(source: str, out: Path) -> None:
    problems = []
    if out.exists():
        problems.append(f"OUT: {out} exists already; remove it, or give another path")
    suffix = ".parquet" if _is_store(source) else Path(source).suffix
    if out.suffix != suffix:
        problems.append(f"OUT: {out} must end in {suffix}, the format that {source} is written in")
    if problems:
        raise UserError(*problems)


def _choose_source(bridge: Bridge, requested: str | None) -> str:
    """The modality to carry over: the requested one, or that of the first trained direction."""
    modalities = bridge.config.modalities
    allowed = [modalities[direction] for direction in bridge.directions]
    if not allowed and bridge.moves_space:
        allowed = list(modalities)  # no network: both modalities are mapped to one space
    if not allowed:
        raise UserError(
            f"BRIDGE: its method, {bridge.config.method}, leaves embeddings as they are; use IN "
            "itself, or a trained bridge"
        )
    if requested is not None and requested not in allowed:
        raise UserError(f"--from: this bridge goes from {' or '.join(allowed)}, not {requested}")
    return requested or allowed[0]


def _summary(bridge: Bridge, source: str, count: int) -> str:
    modalities = bridge.config.modalities
    text = f"{count} {source} embeddings"
    if bridge.directions:
        text += f" carried over to {modalities[1 - modalities.index(source)]}"
    return f"{text}, in the space of {bridge.config.method}" if bridge.moves_space else text


def _as_json(query: Query, hits: list[Hit]) -> dict[str, Any]:
    return {"query": query.name, "from": query.source, "hits": list(map(asdict, hits))}


def _table(query: Query, hits: list[Hit], where: str) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    title = one_line(f"{query.name} ({query.source}) in {where}")
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    for column in ("rank", "score"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("clip", no_wrap=True)
    # Only a clip has something of its own to find.
    for column in ("label", "caption", "its own") if query.clip else ("label", "caption"):
        table.add_column(column)
    for hit in hits:
        cells = [str(hit.rank), f"{hit.score:.4f}", hit.clip, hit.label or "", hit.caption or ""]
        if query.clip:
            cells.append("yes" if hit.own else "")
        table.add_row(*map(one_line, cells))
    return table


def _encoder_facts(store: EmbeddingStore, name: str, facts: dict[str, Any]) -> dict[str, Any]:
    fingerprint = facts.get("store", {}).get("fingerprint")
    if fingerprint not in (None, store.fingerprint):
        raise UserError(
            f"--store: {name} has the fingerprint {store.fingerprint}, and the bridge was trained "
            f"on {fingerprint}; give that store, or leave --store out"
        )
    return store.manifest.encoder.model_dump(mode="json")
