"""Commands that put a trained bridge to use: on files, on a store's clips, in a folder to share."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diffgap.cli.options import make_console, open_known, progress_bar
from diffgap.errors import UserError

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
    help="Of a store.",
)


@click.command("bridge", short_help="Carry somebody's embeddings over the gap.")
@BRIDGE
@click.argument("source_file", metavar="IN")
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--from", "source", help="Modality of IN; default the bridge's first direction's.")
@click.option("--array", help="Array or column of IN; default the modality's, or the only one.")
@SPLIT
def bridge_(
    bridge: Path, source_file: str, out: Path, source: str | None, array: str | None, split: str
) -> None:
    """Carry the embeddings in IN over to BRIDGE's other modality, and write them to OUT.

    IN is a .npy, .npz, .parquet, .pt or .pth file of (N, D) embeddings of the frozen encoder that
    BRIDGE was trained on, and OUT the same file with bridged unit vectors in their place; rows are
    L2-normalised first. Or IN is an embedding store, and OUT a .parquet file of ids and vectors.
    A method without a network (center, mean_shift) takes them to its own space.

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
    source = _source(loaded, source)
    console = make_console()
    if not _is_store(source_file):
        read = read_embeddings(Path(source_file), source, array)
    elif array:
        raise UserError("--array: is of a file; which vectors of a store, --from says")
    else:
        read = read_store(open_known(source_file, console), loaded.config.modalities, source, split)
    values, normalised = unit_rows(read.values, loaded.config.dimension)
    if normalised:
        said = f"{source_file}: rows were not unit vectors, and have been L2-normalised."
        console.print(said, soft_wrap=True)
    with progress_bar(console, f"Bridging {source_file}", "rows") as advance:
        moved = carry_over(loaded, values, source, advance)
    with new_file(out) as temporary:
        read.write(temporary, moved)
    console.print(f"{out}: {_what_they_are(loaded, source, len(moved))}.", soft_wrap=True)


@click.command(short_help="Find clips of a store by what they should sound like.")
@BRIDGE
@click.argument("queries", nargs=-1, metavar="[TEXT]...")
@click.option("--store", required=True, help="A built-in corpus, or a store's path or URI.")
@click.option("--clip", "clips", multiple=True, metavar="ID", help="A clip as the query. Repeats.")
@click.option("--from", "source", help="What of a --clip is the query; default not its text.")
@SPLIT
@click.option("--top", default=10, show_default=True, type=click.IntRange(1), help="Hits a query.")
@click.option("--checkpoint", help="Weights of the store's encoder, as for: diffgap embed.")
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

    Texts are encoded by the store's own frozen encoder, with the very weights that made the store.
    --clip needs no encoder: a clip's audio looks for texts, or its video for audio.

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
    from diffgap.apply import UNKNOWN, Gallery, clip_queries, text_queries
    from diffgap.bridge.methods import load_bridge

    console = make_console(stderr=style == "json")  # beside JSON on standard output
    loaded = load_bridge(bridge)
    opened = open_known(store, console)
    gallery = Gallery(opened, loaded, split)
    asked = text_queries(opened, loaded, queries, checkpoint) if queries else []
    asked += [query for clip in clips for query in clip_queries(opened, loaded, clip, source)]
    if queries and opened.manifest.encoder.checkpoint_hash == UNKNOWN:
        console.print("The store does not say which weights made it; hits by others mean nothing.")
    answers = gallery.answers(asked, top)
    if style == "json":
        told = [
            {"query": query.told, "from": query.source, "hits": [asdict(hit) for hit in hits]}
            for query, hits in answers
        ]
        click.echo(json.dumps(told, indent=2))
        return
    for query, hits in answers:
        console.print(_table(query, hits, f"{store}, {split}"))


@click.command(short_help="Write a folder to share: the bridge and its model card.")
@BRIDGE
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--store", help="The store that it was trained on: the card then names its encoder.")
@click.option("--name", help="Of the model; default FOLDER's.")
@click.option("--license", "licence", help="Of the weights; default apache-2.0.")
def push(
    bridge: Path, folder: Path, store: str | None, name: str | None, licence: str | None
) -> None:
    """Write BRIDGE and a model card into FOLDER, ready for a hub or git; nothing is uploaded.

    The card is made of what the trial left beside its weights. FOLDER may be a clone of a hub's
    repository: bridge.safetensors, config.json, metrics.json and README.md are replaced, unless
    that README.md is no card of diffgap's, and the rest stays.

    \b
    Examples:
      diffgap push runs/trials/SIGNATURE/bridge my_bridge --store soundscapes
      diffgap push runs/trials/SIGNATURE/bridge my_bridge --name text-audio --license cc-by-4.0
      hf upload USER/my_bridge my_bridge
    """
    from diffgap.bridge.methods import load_bridge

    console = make_console()
    loaded = load_bridge(bridge).cpu()
    facts = json.loads((bridge / "config.json").read_text())
    facts.pop("bridge")
    if (bridge / "metrics.json").is_file():
        facts["metrics"] = json.loads((bridge / "metrics.json").read_text())
    if store:
        facts["encoder"] = _encoder_facts(open_known(store, console), store, facts)
    facts |= {key: given for key, given in (("name", name), ("license", licence)) if given}
    try:
        loaded.push(folder, facts=facts)
    except ValueError as error:
        raise UserError(f"FOLDER: {error}; give another folder") from None
    names = ", ".join(sorted(path.name for path in folder.iterdir()))
    console.print(f"{folder}: {names}", soft_wrap=True)
    if "encoder" not in facts:
        console.print("Its card does not name the encoder: give --store STORE.")


USE_COMMANDS = (bridge_, retrieve, push)


# bridge -------------------------------------------------------------------------------------------


def _is_store(name: str) -> bool:
    from diffgap.corpora import BUILTIN

    return "://" in name or Path(name).is_dir() or (name in BUILTIN and not Path(name).exists())


def _check_out(source: str, out: Path) -> None:
    """Refuses to replace a file, and to write another kind of it than is written."""
    problems = []
    if out.exists():
        problems.append(f"OUT: {out} exists already; remove it, or give another place")
    wanted = ".parquet" if _is_store(source) else Path(source).suffix
    if out.suffix != wanted:
        problems.append(f"OUT: {out} must end in {wanted}, as {source} is bridged into that")
    if problems:
        raise UserError(*problems)


def _source(bridge: Bridge, wanted: str | None) -> str:
    """The modality to carry over: the wanted one, or that of the first trained direction.

    A bridge without a network that compares elsewhere takes either to its space.
    """
    modalities = bridge.config.modalities
    allowed = [modalities[direction] for direction in bridge.directions]
    if not allowed and bridge.moves_space:
        allowed = list(modalities)
    if not allowed:
        raise UserError(
            f"BRIDGE: its method, {bridge.config.method}, leaves embeddings as they are; use IN "
            "itself, or a bridge that was trained"
        )
    if wanted is not None and wanted not in allowed:
        raise UserError(f"--from: this bridge goes from {' or '.join(allowed)}, not {wanted}")
    return wanted or allowed[0]


def _what_they_are(bridge: Bridge, source: str, count: int) -> str:
    modalities = bridge.config.modalities
    target = modalities[1 - modalities.index(source)]
    what = f"{count} {source} embeddings"
    if bridge.directions:
        what += f" carried over to {target}"
    return f"{what}, in the space of {bridge.config.method}" if bridge.moves_space else what


# retrieve and push --------------------------------------------------------------------------------


def _table(query: Query, hits: list[Hit], where: str) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    title = Text(f"{query.told} ({query.source}) in {where}")
    shown = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    for column in ("rank", "score"):
        shown.add_column(column, justify="right", no_wrap=True)
    shown.add_column("clip", no_wrap=True)
    columns = ["label", "caption", *(["its own"] if query.clip else [])]
    for column in columns:
        shown.add_column(column)
    for hit in hits:
        cells = [str(hit.rank), f"{hit.score:.4f}", hit.clip, hit.label or "", hit.caption or ""]
        shown.add_row(*map(Text, [*cells, *(["yes" if hit.own else ""] if query.clip else [])]))
    return shown


def _encoder_facts(store: EmbeddingStore, name: str, facts: dict[str, Any]) -> dict[str, Any]:
    """The encoder of the store that a bridge was trained on."""
    trained = facts.get("store", {}).get("fingerprint")
    if trained not in (None, store.fingerprint):
        raise UserError(
            f"--store: {name} has the fingerprint {store.fingerprint}, and the bridge was trained "
            f"on {trained}; give that store, or leave --store out"
        )
    found: dict[str, Any] = store.manifest.encoder.model_dump(mode="json")
    return found
