"""Clips on their way through an extractor: checked, and those of one length together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from diffgap.errors import UserError

SAMPLES_AT_ONCE = 1 << 21
"""Of all clips in a batch: 64 of two seconds at 16 kHz, or 13 of ten."""


@torch.inference_mode()
def each_clip(
    waveforms: Sequence[np.ndarray],
    run: Callable[[Tensor], tuple[Tensor, ...]],
    *,
    device: str,
    shortest: int = 1,
    multiple: int = 1,
) -> tuple[list[Tensor], ...]:
    """Runs a network over clips of any lengths; batches are of one length.

    Args:
        waveforms: N of mono float32 (samples,).
        run: (B, samples) on `device` to some tensors (B, ...).
        device: where the network is.
        shortest: samples that silence fills clips up to, at least.
        multiple: and up to a multiple of so many.

    Returns:
        For each of the tensors, its N rows on the CPU.

    Raises:
        UserError: where there are no clips, or one is empty or not finite.
    """
    check(waveforms)
    alike = defaultdict(list)
    for number, waveform in enumerate(waveforms):
        alike[len(waveform)].append(number)
    found: dict[int, tuple[Tensor, ...]] = {}
    for length, numbers in alike.items():
        wanted = -(-max(length, shortest) // multiple) * multiple
        at_once = max(1, SAMPLES_AT_ONCE // wanted)
        for start in range(0, len(numbers), at_once):
            batch = numbers[start : start + at_once]
            samples = torch.from_numpy(np.stack([waveforms[n] for n in batch]).astype(np.float32))
            made = run(F.pad(samples, (0, wanted - length)).to(device))
            found |= zip(batch, zip(*(part.cpu() for part in made), strict=True), strict=True)
    rows = (found[number] for number in range(len(waveforms)))
    return tuple(list(part) for part in zip(*rows, strict=True))


def filled(clips: Sequence[Tensor]) -> np.ndarray:
    """(N, F, D) of N clips' (their own F, D) frames, short ones filled up with rows of NaN."""
    frames = torch.nn.utils.rnn.pad_sequence(list(clips), True, padding_value=torch.nan)
    return np.asarray(frames)


def check(waveforms: Sequence[np.ndarray]) -> None:
    """Raises a UserError where there are no clips, or one is empty, not mono or not finite."""
    if not len(waveforms):
        raise UserError("waveforms: there are none; give at least one clip")
    for number, waveform in enumerate(waveforms):
        if waveform.ndim != 1 or not len(waveform) or not np.isfinite(waveform).all():
            raise UserError(
                f"waveforms: number {number} of {len(waveforms)}, of shape {waveform.shape}, is "
                "empty, not mono, or not finite; see how it was made, or leave it out"
            )
