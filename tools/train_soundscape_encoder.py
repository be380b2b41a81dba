"""Trains the soundscape encoder: symmetric InfoNCE, audio with text and audio with video.

    python tools/train_soundscape_encoder.py

Its clips are of the split ``encoder``, which is in no store. Writes the weights that ship with
the package, and a record of how they came about. A few minutes on two cores.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import click
import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from diffgap.corpora.soundscapes import SoundscapeCorpus
from diffgap.encoders.soundscape import WEIGHTS, Towers
from diffgap.io.atomic import write_json

SETTINGS = {
    "clips": 2000,
    "captions": 2,
    "epochs": 30,
    "batch_size": 128,
    "lr": 1.5e-3,
    "weight_decay": 0.05,
    "seed": 0,
}


def train(
    clips: int,
    captions: int,
    epochs: int,
    batch_size: int,
    lr: float,
    weight_decay: float,
    seed: int,
) -> tuple[Towers, list[float]]:
    """Trains the towers; returns them with the mean loss of every epoch."""
    torch.manual_seed(seed)
    corpus = SoundscapeCorpus({"encoder": clips}, captions=captions)
    listed = corpus.clips()
    sounds = torch.from_numpy(np.stack([corpus.audio(clip)[0] for clip in listed]))
    videos = torch.from_numpy(np.stack([corpus.video(clip) for clip in listed]))
    towers = Towers().train()
    optimizer = torch.optim.AdamW(towers.parameters(), lr=lr, weight_decay=weight_decay)
    total = epochs * (clips // batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=total, pct_start=0.15)
    losses = []
    for epoch in range(epochs):
        started, batch_losses = time.monotonic(), []
        for rows in torch.randperm(clips).split(batch_size)[: clips // batch_size]:
            words = [listed[i].captions[epoch % captions] for i in rows.tolist()]
            loss = _loss(towers, sounds[rows], words, videos[rows])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(towers.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            batch_losses.append(loss.item())
        losses.append(float(np.mean(batch_losses)))
        click.echo(f"epoch {epoch}: loss {losses[-1]:.3f}, {time.monotonic() - started:.0f} s")
    return towers.eval(), losses


def _loss(towers: Towers, sounds: Tensor, words: list[str], videos: Tensor) -> Tensor:
    """Half InfoNCE of audio and text, half of audio and video, both ways each."""
    frames = videos.permute(0, 1, 4, 2, 3).float() / 255
    audio = F.normalize(towers.audio(sounds), dim=-1)
    scale = towers.log_scale.clamp(max=4.6).exp()
    diagonal = torch.arange(len(sounds))  # a clip belongs to its own caption and video
    loss = audio.new_zeros(())
    for partners in (towers.text(words), towers.video(frames)):
        logits = scale * audio @ F.normalize(partners, dim=-1).T
        loss = (
            loss + F.cross_entropy(logits, diagonal) / 4 + F.cross_entropy(logits.T, diagonal) / 4
        )
    return loss


@click.command(help=__doc__)
@click.option("--out", type=click.Path(path_type=Path), default=WEIGHTS, show_default=True)
def main(out: Path) -> None:
    towers, losses = train(**SETTINGS)  # type: ignore[arg-type]
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.half() for name, value in towers.state_dict().items()}, out)
    record = {
        "command": "python tools/train_soundscape_encoder.py",
        "settings": SETTINGS,
        "loss_per_epoch": [round(loss, 4) for loss in losses],
        "sha256": hashlib.sha256(out.read_bytes()).hexdigest(),
    }
    write_json(out.with_suffix(".json"), record)


if __name__ == "__main__":
    main()
