"""Trains the soundscape generator: diffusion of log-mels, conditioned on audio embeddings.

    python tools/train_soundscape_generator.py

Its clips are of the split ``generator``, which is in no store. As AudioLDM, it sees nothing but
the frozen encoder's embeddings of the sound itself. Writes the weights that ship with the package,
and a record of how they came about. A quarter of an hour on two cores with bfloat16 matrix units.
"""

from __future__ import annotations

import copy
import hashlib
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from diffgap.corpora.soundscapes import SoundscapeCorpus
from diffgap.encoders.soundscape import SoundscapeEncoder
from diffgap.generation.soundscape_generator import (
    WEIGHTS,
    autocast,
    make_network,
    make_scheduler,
    standard_log_mel,
)
from diffgap.io.atomic import write_json

SETTINGS: dict[str, Any] = {
    "clips": 12_000,
    "steps": 2700,
    "batch_size": 64,
    "lr": 1e-3,
    "weight_decay": 0.01,
    "ema": 0.997,
    "condition_dropout": 0.1,
    "seed": 0,
}
LOG_EVERY = 100
"""Steps whose mean loss is printed, and recorded."""
RENDERED = 200
"""Clips rendered and encoded at once."""


def render(clips: int) -> tuple[Tensor, Tensor]:
    """Log-mels (N, 64, 128) and audio embeddings (N, 128) of the training clips."""
    corpus, encoder = SoundscapeCorpus({"generator": clips}), SoundscapeEncoder.load()
    listed = corpus.clips()
    mels, embeddings = [], []
    for start in range(0, clips, RENDERED):
        sounds = [corpus.audio(clip)[0] for clip in listed[start : start + RENDERED]]
        mels.append(standard_log_mel(torch.from_numpy(np.stack(sounds))))
        embeddings.append(torch.from_numpy(encoder.encode_audio(sounds)))
    return torch.cat(mels), torch.cat(embeddings)


def train(
    mels: Tensor,
    embeddings: Tensor,
    steps: int,
    batch_size: int,
    lr: float,
    weight_decay: float,
    ema: float,
    condition_dropout: float,
    seed: int,
) -> tuple[nn.Module, list[float]]:
    """Trains the network; returns its averaged weights, and mean losses of `LOG_EVERY` steps."""
    torch.manual_seed(seed)
    network, scheduler = make_network(), make_scheduler()
    network.components.fit(mels)
    latents = network.components.encode(mels)
    averaged = copy.deepcopy(network).requires_grad_(False)
    optimizer = torch.optim.AdamW(network.parameters(), lr=lr, weight_decay=weight_decay)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.05)
    losses, recent, started = [], [], time.monotonic()
    for step in range(1, steps + 1):
        rows = torch.randint(len(mels), (batch_size,))
        # Dropped conditions teach the network v without a condition, which guidance needs.
        conditioned = torch.rand(batch_size, 1) >= condition_dropout
        loss = _loss(network, scheduler, latents[rows], embeddings[rows] * conditioned)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        rates.step()
        # A short average at first: the random weights of the start are soon forgotten.
        for average, weight in zip(averaged.parameters(), network.parameters(), strict=True):
            average.lerp_(weight.detach(), 1 - min(ema, step / (step + 10)))
        recent.append(loss.item())
        if step % LOG_EVERY == 0:
            losses.append(float(np.mean(recent)))
            recent.clear()
            click.echo(f"step {step}: loss {losses[-1]:.4f}, {time.monotonic() - started:.0f} s")
    return averaged.eval(), losses


def _loss(network: nn.Module, scheduler: Any, latents: Tensor, conditions: Tensor) -> Tensor:
    """Mean squared error of v (Salimans & Ho 2022), at noise levels evenly drawn."""
    times = torch.randint(scheduler.config.num_train_timesteps, (len(latents),))
    noise = torch.randn_like(latents)
    # By hand: the scheduler's add_noise takes the times of a sampler only.
    signal = scheduler.alphas_cumprod[times, None, None, None]
    alpha, sigma = signal.sqrt(), (1 - signal).sqrt()
    target = alpha * noise - sigma * latents
    with autocast(latents.device):
        predicted = network(alpha * latents + sigma * noise, times, conditions)
    return F.mse_loss(predicted.float(), target)


@click.command(help=__doc__)
@click.option("--out", type=click.Path(path_type=Path), default=WEIGHTS, show_default=True)
def main(out: Path) -> None:
    started = time.monotonic()
    settings = dict(SETTINGS)
    network, losses = train(*render(settings.pop("clips")), **settings)
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.half() for name, value in network.state_dict().items()}, out)
    record = {
        "command": "python tools/train_soundscape_generator.py",
        "settings": SETTINGS,
        "minutes": round((time.monotonic() - started) / 60, 1),
        "threads": torch.get_num_threads(),
        "loss_per_100_steps": [round(loss, 4) for loss in losses],
        "sha256": hashlib.sha256(out.read_bytes()).hexdigest(),
    }
    write_json(out.with_suffix(".json"), record)


if __name__ == "__main__":
    main()
