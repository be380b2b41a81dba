"""Command `diffgap generate`: sound for prompts, videos, or the clips of a store."""

from __future__ import annotations

import csv
import json
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import click

from diffgap.cli.bridge import BRIDGE, SPLIT
from diffgap.cli.options import FiniteRange, make_console, open_known, progress_bar
from diffgap.errors import UserError
from diffgap.io.printable import csv_cell
from diffgap.pretrained.choice import BUNDLED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from diffgap.bridge.base import Bridge
    from diffgap.encoders.base import Encoder
    from diffgap.generation import GeneratorChoice
    from diffgap.generation.base import Generator
    from diffgap.generation.candidates import Candidate
    from diffgap.generation.conditions import GenerationRequest

INDEX = "index.csv"
"""Table of a directory's clips: file, query, seed and similarity."""


@click.command(short_help="Generate sound for prompts, videos or a store's clips.")
@BRIDGE
@click.option("--prompt", "prompts", multiple=True, help="Describes the sound. May be repeated.")
@click.option(
    "--video",
    "videos",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A video to generate sound for. May be repeated.",
)
@click.option("--store", help="Generate sound for the clips of a store: a corpus, path or URI.")
@SPLIT
@click.option(
    "--limit", default=10, show_default=True, type=click.IntRange(1), help="Clips of the store."
)
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="A .wav or .flac file; a directory for several clips.",
)
@click.option(
    "--format",
    "style",
    type=click.Choice(["wav", "flac"]),
    default="wav",
    show_default=True,
    help="Format of the files in a directory.",
)
@click.option(
    "--condition",
    type=click.Choice(["bridged", "query", "target"]),
    default="bridged",
    show_default=True,
    help="Embedding that conditions the generator: the query carried over by BRIDGE, the query "
    "itself, or (of a store's clip) that of its true audio.",
)
@click.option("--generator", "name", help="Default: the one for BRIDGE's encoder.")
@click.option("--weights", help="The generator's weights: a path or a hub id.")
@click.option("--checkpoint", help="Weights of BRIDGE's encoder, as for: diffgap embed.")
@click.option(
    "--pooled",
    is_flag=True,
    help="Condition a generator that takes a video's tokens on one embedding of it, repeated.",
)
@click.option("--steps", type=click.IntRange(1, 1000), help="Sampler steps.")
@click.option("--guidance", type=FiniteRange(1, 100), help="Classifier-free guidance; 1 is off.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Of the noise.")
@click.option(
    "--candidates",
    default=1,
    show_default=True,
    type=click.IntRange(1, 100),
    help="Candidates for each clip, of which the one most similar to the query is kept.",
)
def generate(bridge: Path, name: str | None, **settings: Any) -> None:
    """Generate sound for each --prompt or --video, or for the clips of --store, through BRIDGE.

    BRIDGE carries the query's embedding over to audio, where it conditions a generator: the small
    one of the embedded corpus, AudioLDM (for CLAP) or Diff-Foley (for CAVP). Files have 16 bits, at
    the generator's own rate. The same seed gives the same sound.

    \b
    Examples:
      diffgap generate runs/trials/SIGNATURE/bridge --prompt "rain falls loudly" --out rain.wav
      diffgap generate BRIDGE --prompt "a dog barks" --prompt "a bell rings" --out sounds \\
          --candidates 4 --format flac
      diffgap generate BRIDGE --store soundscapes --split test --limit 20 --out sounds
      diffgap generate CLAP_BRIDGE --prompt "rain on a tin roof" --out rain.wav \\
          --weights cvssp/audioldm-s-full-v2 --checkpoint laion/clap-htsat-unfused
      diffgap generate CAVP_BRIDGE --video clip.mp4 --out clip.wav \\
          --weights ldm_epoch240.ckpt --checkpoint cavp_epoch66.ckpt
    """
    options = SimpleNamespace(**settings)
    _check_options(options)
    from diffgap.bridge.methods import load_bridge
    from diffgap.generation import GeneratorChoice
    from diffgap.generation.base import Sampling
    from diffgap.generation.candidates import best_candidates
    from diffgap.generation.conditions import conditions, noise_seeds
    from diffgap.generation.request import default_generator

    console = make_console()
    loaded = load_bridge(bridge)
    record = json.loads((bridge / "config.json").read_text()).get("encoder", {})
    encoder_name = record.get("name", "")
    choice = GeneratorChoice(name or default_generator(encoder_name), options.weights)
    generator = _load_generator(options, loaded, encoder_name, choice, console)
    request, encoder = _request(options, loaded, record, generator, console)
    sampling = Sampling(
        options.steps or generator.defaults.steps, options.guidance or generator.defaults.guidance
    )
    seeds = noise_seeds(request.ids, options.seed)
    embeddings = conditions(options.condition, loaded, request, seeds)
    with progress_bar(console, f"Generating with {generator.name}", "clips") as bar:
        clips = best_candidates(
            generator, embeddings, request, sampling, options.seed, options.candidates, encoder, bar
        )
    _write(options, generator, request, clips, console)


def _writes_file(options: SimpleNamespace) -> bool:
    """Whether OUT is one sound file; else it is a directory of them."""
    return bool(options.out.suffix) and len(options.prompts) + len(options.videos) == 1


def _check_options(options: SimpleNamespace) -> None:
    """Refuses what is wrong whatever the bridge is, before anything large is imported."""
    from diffgap.audio.files import format_problem

    problems = []
    sources = (bool(options.prompts), bool(options.videos), options.store is not None)
    if sources.count(True) != 1:
        problems.append("give one of --prompt, --video and --store, as in --prompt 'a dog barks'")
    if options.out.exists():
        problems.append(f"--out: {options.out} exists already; remove it, or give another path")
    elif _writes_file(options):
        if problem := format_problem(options.out):
            problems.append(f"--out: {problem}")
    elif options.out.suffix:
        problems.append(
            f"--out: {options.out} would be a directory of several clips; leave out its "
            f"{options.out.suffix}"
        )
    if options.condition == "target" and options.store is None:
        problems.append("--condition: only the clips of a --store have true audio; use bridged")
    if problems:
        raise UserError(*problems)


def _load_generator(
    options: SimpleNamespace,
    bridge: Bridge,
    encoder: str,
    choice: GeneratorChoice,
    console: Console,
) -> Generator:
    """The generator; everything else about the request is checked before it is loaded."""
    import torch

    from diffgap.generation.request import bridge_problems, dimension_problem, query_problems
    from diffgap.io.cpus import limit_threads

    problems = query_problems(bridge, options.prompts, options.videos)
    # A raw query or target shows what a generator makes of any embedding, fitting or not.
    if options.condition == "bridged":
        problems = bridge_problems(bridge, encoder, choice) + problems
    if problems:
        raise UserError(*problems)
    console.print(f"Loading the generator {choice.name} ...", style="dim")
    limit_threads()
    generator = choice.load("cuda" if torch.cuda.is_available() else "cpu")
    if problem := dimension_problem(bridge, generator):
        raise UserError(problem)
    return generator


def _request(
    options: SimpleNamespace,
    bridge: Bridge,
    record: dict[str, Any],
    generator: Generator,
    console: Console,
) -> tuple[GenerationRequest, Encoder | None]:
    """The queries, and the encoder that ranks what is generated; None where it is not needed."""
    from diffgap.generation.conditions import store_request
    from diffgap.generation.request import clap_problem, encode_prompts, encode_videos, load_encoder

    if options.store is not None:
        store = open_known(options.store, console)
        task = "-".join(bridge.config.modalities)
        request = store_request(store, task, options.split, options.limit)
        # A store has its queries' embeddings, so that weights to be downloaded are not needed.
        bundled = record.get("name") == BUNDLED
        if options.candidates == 1 and not bundled and not options.checkpoint:
            return request, None
    encoder = load_encoder(record, options.checkpoint, "cpu")
    if problem := clap_problem(generator, encoder):
        raise UserError(problem)
    if options.prompts:
        request = encode_prompts(encoder, options.prompts)
    elif options.videos:
        request = encode_videos(encoder, options.videos, generator, options.pooled)
    return request, encoder


def _write(
    options: SimpleNamespace,
    generator: Generator,
    request: GenerationRequest,
    clips: list[Candidate],
    console: Console,
) -> None:
    from diffgap.audio.files import write_audio
    from diffgap.generation.file_names import file_names
    from diffgap.io.atomic import new_directory

    queries = request.captions or request.ids
    if _writes_file(options):
        write_audio(options.out, clips[0].samples, generator.rate)
        paths = [options.out]
    else:
        names = [f"{name}.{options.style}" for name in file_names(request.ids)]
        paths = [options.out / name for name in names]
        with new_directory(options.out) as directory:
            for path, clip in zip(paths, clips, strict=True):
                write_audio(directory / path.name, clip.samples, generator.rate, path)
            (directory / INDEX).write_text(_index(names, queries, clips))
    for path, query, clip in zip(paths, queries, clips, strict=True):
        summary = f"{len(clip.samples) / generator.rate:.1f} s at {generator.rate:,} Hz"
        summary += f", seed {clip.seed}"
        if clip.similarity is not None:
            summary += f", similarity {clip.similarity:.2f}"
        console.print(f"{path}: {query}; {summary}.", soft_wrap=True)


def _index(names: Sequence[str], queries: Sequence[str], clips: Sequence[Candidate]) -> str:
    """The table of a directory's clips, as CSV."""
    table = StringIO()
    index = csv.writer(table)
    index.writerow(["file", "query", "seed", "similarity"])
    for name, query, clip in zip(names, queries, clips, strict=True):
        similarity = "" if clip.similarity is None else f"{clip.similarity:.4f}"
        index.writerow([csv_cell(name), csv_cell(query), clip.seed, similarity])
    return table.getvalue()
