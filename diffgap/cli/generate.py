"""`diffgap generate`: sound for prompts, videos, or the clips of a store."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diffgap.cli.bridge import BRIDGE, SPLIT
from diffgap.cli.options import make_console, open_known, progress_bar
from diffgap.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from diffgap.bridge.base import Bridge
    from diffgap.encoders.base import Encoder
    from diffgap.generation import GeneratorChoice
    from diffgap.generation.base import Generator
    from diffgap.generation.candidates import Candidate
    from diffgap.generation.conditions import GenerationRequest

INDEX = "index.csv"
"""In a directory of clips: what each of them is."""


@dataclass(frozen=True)
class Wanted:
    """What the command line asks for."""

    bridge: Path
    prompts: tuple[str, ...]
    videos: tuple[Path, ...]
    store: str | None
    split: str
    limit: int
    out: Path
    style: str
    condition: str
    weights: str | None
    checkpoint: str | None
    pooled: bool
    steps: int | None
    guidance: float | None
    seed: int
    candidates: int

    @property
    def is_file(self) -> bool:
        """Whether OUT is one file of sound; else it is a directory of them."""
        return bool(self.out.suffix) and len(self.prompts) + len(self.videos) == 1


@click.command(short_help="Make sound of prompts, videos or a store's clips.")
@BRIDGE
@click.option("--prompt", "prompts", multiple=True, help="What should be heard. Repeats.")
@click.option(
    "--video",
    "videos",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A video that sound is made for. Repeats.",
)
@click.option("--store", help="Make sound for the clips of a store: a corpus, path or URI.")
@SPLIT
@click.option(
    "--limit", default=10, show_default=True, type=click.IntRange(1), help="Clips of a store."
)
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="A .wav or .flac file; of several clips, a directory.",
)
@click.option(
    "--format",
    "style",
    type=click.Choice(["wav", "flac"]),
    default="wav",
    show_default=True,
    help="Of the files in a directory.",
)
@click.option(
    "--condition",
    type=click.Choice(["bridged", "query", "target"]),
    default="bridged",
    show_default=True,
    help="What the generator is given: the query carried over by BRIDGE, the query as it is, or "
    "(of a store) the embedding of the true audio.",
)
@click.option("--generator", "name", help="Default: the one for the encoder of BRIDGE.")
@click.option("--weights", help="Of the generator: a path or a hub id.")
@click.option("--checkpoint", help="Weights of BRIDGE's encoder, as for: diffgap embed.")
@click.option(
    "--pooled",
    is_flag=True,
    help="Give a generator that takes many embeddings of a video the whole video's, repeated.",
)
@click.option("--steps", type=click.IntRange(1, 1000), help="Of the sampler.")
@click.option("--guidance", type=click.FloatRange(1), help="Classifier-free; 1 is off.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Of the noise.")
@click.option(
    "--candidates",
    default=1,
    show_default=True,
    type=click.IntRange(1, 100),
    help="Tries a clip, of which the most similar to the query is kept.",
)
def generate(bridge: Path, name: str | None, **options: Any) -> None:
    """Make sound of each --prompt or --video, or of the clips of --store, through BRIDGE.

    The query's embedding is carried over to audio by BRIDGE and given to a generator: the small one
    of the embedded corpus, AudioLDM (for CLAP) or Diff-Foley (for CAVP). Files have 16 bits, at the
    generator's own rate. The same seed makes the same sound.

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
    wanted = Wanted(bridge=bridge, **options)
    _check(wanted)
    from diffgap.bridge.methods import load_bridge
    from diffgap.generation import GeneratorChoice
    from diffgap.generation.base import Sampling
    from diffgap.generation.candidates import best_of
    from diffgap.generation.conditions import conditions, seeds_of
    from diffgap.generation.request import default_generator

    console = make_console()
    loaded = load_bridge(bridge)
    made = json.loads((bridge / "config.json").read_text()).get("encoder", {})
    choice = GeneratorChoice(name or default_generator(made.get("name", "")), wanted.weights)
    _check_bridge(wanted, loaded, made.get("name", ""), choice)
    generator = _load(loaded, choice, console)
    asked, encoder = _asked(wanted, loaded, made, generator, console)
    sampling = Sampling(
        wanted.steps or generator.defaults.steps, wanted.guidance or generator.defaults.guidance
    )
    with progress_bar(console, f"Generating with {generator.name}", "clips") as advance:
        best = best_of(
            generator,
            conditions(wanted.condition, loaded, asked, seeds_of(asked.ids, wanted.seed)),
            asked,
            sampling,
            wanted.seed,
            wanted.candidates,
            encoder,
            advance,
        )
    _write(wanted, generator, asked, best, console)


def _check(wanted: Wanted) -> None:
    """Refuses what is wrong whatever the bridge is."""
    from diffgap.audio.files import format_problem

    problems = []
    sources = [bool(wanted.prompts), bool(wanted.videos), wanted.store is not None]
    if sum(sources) != 1:
        problems.append("give one of --prompt, --video and --store, as in --prompt 'a dog barks'")
    if wanted.out.exists():
        problems.append(f"--out: {wanted.out} exists already; remove it, or give another place")
    elif wanted.is_file and (problem := format_problem(wanted.out)):
        problems.append(f"--out: {problem}")
    elif wanted.out.suffix and not wanted.is_file:
        problems.append(f"--out: {wanted.out} would be a directory of several clips; leave out its "
                        f"{wanted.out.suffix}")  # fmt: skip
    if wanted.condition == "target" and wanted.store is None:
        problems.append("--condition: only the clips of a --store have true audio; use bridged")
    if problems:
        raise UserError(*problems)


def _check_bridge(wanted: Wanted, bridge: Bridge, encoder: str, choice: GeneratorChoice) -> None:
    from diffgap.generation.request import misfits, prompt_problems, video_problems

    problems = misfits(bridge, encoder, choice) if wanted.condition == "bridged" else []
    problems += prompt_problems(bridge, wanted.prompts)
    problems += video_problems(bridge, wanted.videos)
    if problems:
        raise UserError(*problems)


def _load(bridge: Bridge, choice: GeneratorChoice, console: Console) -> Generator:
    import torch

    from diffgap.generation.request import dimension_problem

    console.print(f"Loading the generator {choice.name} ...", style="dim")
    generator = choice.load("cuda" if torch.cuda.is_available() else "cpu")
    if problem := dimension_problem(bridge, generator):
        raise UserError(problem)
    return generator


def _asked(
    wanted: Wanted, bridge: Bridge, made: dict[str, Any], generator: Generator, console: Console
) -> tuple[GenerationRequest, Encoder | None]:
    """The queries, and the encoder that hears what comes of them."""
    from diffgap.generation.conditions import choose
    from diffgap.generation.request import (
        clap_problem,
        encoded_prompts,
        encoded_videos,
        own_encoder,
    )

    task = "-".join(bridge.config.modalities)
    if wanted.store is not None:
        asked = choose(open_known(wanted.store, console), task, wanted.split, wanted.limit)
        if wanted.candidates == 1 and made.get("name") != "soundscape" and not wanted.checkpoint:
            return asked, None
    encoder = own_encoder(made, wanted.checkpoint, "cpu")
    if problem := clap_problem(generator, encoder):
        raise UserError(problem)
    if wanted.prompts:
        asked = encoded_prompts(encoder, wanted.prompts)
    elif wanted.videos:
        asked = encoded_videos(encoder, wanted.videos, generator, wanted.pooled)
    return asked, encoder


def _write(
    wanted: Wanted,
    generator: Generator,
    asked: GenerationRequest,
    best: list[Candidate],
    console: Console,
) -> None:
    from diffgap.audio.files import write_audio
    from diffgap.io.atomic import write_text

    told = asked.captions or asked.ids
    if wanted.is_file:
        write_audio(wanted.out, best[0].samples, generator.rate)
        console.print(f"{wanted.out}: {_told(told[0], best[0], generator)}.", soft_wrap=True)
        return
    index = csv.writer(lines := StringIO())
    index.writerow(["file", "query", "seed", "similarity"])
    for name, query, one in zip(asked.ids, told, best, strict=True):
        file = f"{name.replace('/', '_')}.{wanted.style}"
        write_audio(wanted.out / file, one.samples, generator.rate)
        like = "" if one.similarity is None else f"{one.similarity:.4f}"
        index.writerow([file, query, one.seed, like])
        console.print(f"{wanted.out / file}: {_told(query, one, generator)}.", soft_wrap=True)
    write_text(wanted.out / INDEX, lines.getvalue())


def _told(query: str, one: Candidate, generator: Generator) -> str:
    seconds = f"{len(one.samples) / generator.rate:.1f} s at {generator.rate:,} Hz"
    like = "" if one.similarity is None else f", similarity {one.similarity:.2f}"
    return f"{query}; {seconds}, seed {one.seed}{like}"
