"""Trains the judges of the embedded corpus: classifier and alignment.

    python tools/train_soundscape_judges.py

Their clips are of the splits ``classifier`` and ``classifier-val``, which are in no store and
which no encoder was trained on. Writes the weights that ship with the package, and a record of
how they came about and how good they are. A few minutes on two cores.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from diffgap.corpora.soundscapes import SEED, SoundscapeCorpus
from diffgap.corpora.soundscapes.audio import RATE
from diffgap.corpora.soundscapes.scenes import KINDS, draw_scene, generator
from diffgap.corpora.soundscapes.video import FRAMES
from diffgap.evaluation.extractors.soundscape_judges import (
    WEIGHTS,
    Alignment,
    Networks,
    SoundscapeAlignment,
    SoundscapeExtractor,
    Spectrogram,
)
from diffgap.io.atomic import write_json

SETTINGS = {"clips": 8000, "batch_size": 64, "lr": 2e-3, "weight_decay": 0.05, "seed": 0}
EPOCHS = {"classifier": 8, "alignment": 7}
VALIDATION = 500
"""Clips of ``classifier-val``."""

SHIFTS = (2, 6)
"""Frames that sound out of time is early or late by: 0.5 to 1.5 s."""


@dataclass(frozen=True)
class Clips:
    """N soundscapes as tensors."""

    sounds: np.ndarray
    """Float32 (N, 32000)."""
    spectra: Tensor
    """Float32 (N, 1, 64, 125), of the sounds."""
    videos: Tensor
    """uint8 (N, 8, 32, 32, 3)."""
    shares: Tensor
    """Float32 (N, 24): the kinds of a clip's events, an equal share each."""
    in_turn: Tensor
    """Bool (N,): several events, one after another, so that their times can be wrong."""

    @classmethod
    def of(cls, split: str, count: int) -> Clips:
        """Clips of the embedded corpus."""
        corpus = SoundscapeCorpus({split: count})
        listed = corpus.clips()
        scenes = [draw_scene(generator("scene", SEED, clip.id)) for clip in listed]
        shares = torch.zeros(count, len(KINDS))
        for row, scene in zip(shares, scenes, strict=True):
            row[[event.kind for event in scene.events]] = 1 / len(scene.events)
        sounds = np.stack([corpus.audio(clip)[0] for clip in listed])
        return cls(
            sounds,
            torch.cat([Spectrogram()(part) for part in torch.from_numpy(sounds).split(500)]),
            torch.from_numpy(np.stack([corpus.video(clip) for clip in listed])),
            shares,
            torch.tensor([len(scene.events) > 1 and not scene.mixed for scene in scenes]),
        )


def train(clips: Clips) -> Networks:
    """Both networks, one after the other."""
    torch.manual_seed(int(SETTINGS["seed"]))
    networks = Networks()

    def classifying(rows: Tensor) -> Tensor:
        return F.cross_entropy(networks.classifier(clips.spectra[rows])[1], clips.shares[rows])

    def aligning(rows: Tensor) -> Tensor:
        return alignment_loss(networks.alignment, clips, rows)

    _fit(networks.classifier, classifying, len(clips.sounds), EPOCHS["classifier"])
    networks.alignment.listener.load_state_dict(networks.classifier.listener.state_dict())
    _fit(networks.alignment, aligning, len(clips.sounds), EPOCHS["alignment"])
    return networks.eval()


def _fit(network: nn.Module, loss_of: Callable[[Tensor], Tensor], clips: int, epochs: int) -> None:
    network.train()
    batch, lr = int(SETTINGS["batch_size"]), SETTINGS["lr"]
    optimizer = torch.optim.AdamW(network.parameters(), lr, weight_decay=SETTINGS["weight_decay"])
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, lr, total_steps=epochs * (clips // batch), pct_start=0.2
    )
    for epoch in range(epochs):
        started, losses = time.monotonic(), []
        for rows in torch.randperm(clips).split(batch)[: clips // batch]:
            loss = loss_of(rows)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        took = time.monotonic() - started
        click.echo(f"{type(network).__name__} {epoch}: loss {np.mean(losses):.3f}, {took:.0f} s")


def alignment_loss(network: Alignment, clips: Clips, rows: Tensor) -> Tensor:
    """Cross-entropy of pairs that belong together, of another clip's sound, and of shifted sound.

    A turned clip begins and ends in the middle of an event, which would be heard, or seen, without
    comparing. So half of all sounds and half of all videos are turned, whether together (true) or
    not (false). Each clip weighs as much with its own sound as with false ones.
    """
    count = len(rows)
    shifts = torch.randint(SHIFTS[0], SHIFTS[1] + 1, (count,))
    frames = network.view(clips.videos[rows])
    video = torch.stack([frames, turned(frames, shifts, 1)])
    spectra = clips.spectra[rows]
    audio = torch.stack([network.listener(spectra), network.listener(turned(spectra, shifts, 3))])
    clips_in_order = torch.arange(count)
    side, other_side = torch.randint(2, (2, count))
    pairs = [
        (video[side, clips_in_order], audio[side, clips_in_order]),
        (video[side, clips_in_order], audio[other_side, clips_in_order].roll(1, 0)),
        (video[side, clips_in_order], audio[1 - side, clips_in_order]),
    ]
    in_turn = clips.in_turn[rows]
    logits = network.judge(*(torch.cat(part) for part in zip(*pairs, strict=True))).view(3, count)
    truth = torch.tensor([1.0, 0.0, 0.0])[:, None].expand(3, count)
    weights = torch.stack([torch.ones(count), torch.where(in_turn, 0.5, 1.0), 0.5 * in_turn])
    return F.binary_cross_entropy_with_logits(logits, truth, weights, reduction="sum") / (2 * count)


def turned(streams: Tensor, frames: Tensor, time: int) -> Tensor:
    """(B, ...), each later by its number of video frames along `time`, its end at the start."""
    unit = streams.shape[time] / FRAMES
    shifted = [s.roll(round(unit * int(n)), time - 1) for s, n in zip(streams, frames, strict=True)]
    return torch.stack(shifted)


def accuracies(networks: Networks, clips: Clips) -> dict[str, float]:
    """On clips that were not trained on, in percent.

    Returns:
        classifier: clips whose likeliest kind is among those that sound.
        aligned_true: true pairs that are taken for such.
        aligned_other: videos with another clip's sound that are not.
        aligned_shifted: clips of several events in turn, their sound off by 0.5 to 1.5 s, that
            are not.
    """
    sounds, videos = list(clips.sounds), list(clips.videos.numpy())
    probabilities = SoundscapeExtractor(networks.classifier, "").features(sounds).probabilities
    assert probabilities is not None
    right = clips.shares.numpy()[np.arange(len(probabilities)), probabilities.argmax(1)] > 0
    rng = np.random.default_rng(0)
    shifts = rng.integers(RATE // 2, 3 * RATE // 2, len(sounds))
    late = [np.roll(sound, shift) for sound, shift in zip(sounds, shifts, strict=True)]
    judge = SoundscapeAlignment(networks.alignment, "").aligned
    shares = {
        "classifier": right,
        "aligned_true": judge(videos, sounds),
        "aligned_other": ~judge(videos, [*sounds[1:], sounds[0]]),
        "aligned_shifted": ~judge(videos, late)[clips.in_turn.numpy()],
    }
    return {name: round(100 * float(share.mean()), 1) for name, share in shares.items()}


@click.command(help=__doc__)
@click.option("--out", type=click.Path(path_type=Path), default=WEIGHTS, show_default=True)
def main(out: Path) -> None:
    networks = train(Clips.of("classifier", int(SETTINGS["clips"])))
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.half() for name, value in networks.state_dict().items()}, out)
    record = {
        "command": "python tools/train_soundscape_judges.py",
        "settings": {**SETTINGS, "epochs": EPOCHS, "validation_clips": VALIDATION},
        "accuracy": accuracies(networks, Clips.of("classifier-val", VALIDATION)),
        "sha256": hashlib.sha256(out.read_bytes()).hexdigest(),
    }
    write_json(out.with_suffix(".json"), record)


if __name__ == "__main__":
    main()
