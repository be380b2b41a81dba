"""Running an extractor's network over clips of any lengths."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from diffgap.errors import UserError

SAMPLES_AT_ONCE = 1 << 21  # of all clips in a batch: 64 of two seconds at 16 kHz, or 13 of ten


@torch.inference_mode()
def run_on_clips(
    waveforms: Sequence[np.ndarray],
    run: Callable[[Tensor], tuple[Tensor, ...]],
    *,
    device: str,
    shortest: int = 1,
    multiple: int = 1,
) -> tuple[list[Tensor], ...]:
    """Outputs of a network for each clip; clips of one length share batches.

    Args:
        waveforms: N of mono float32 (samples,).
        run: (B, samples) on `device` to some tensors (B, ...).
        device: where the network is.
        shortest: samples that silence pads a clip to, at least.
        multiple: and to a multiple of so many.

    Returns:
        For each of the tensors, its N rows on the CPU.

    Raises:
        UserError: where there are no clips, or one is empty or not finite.
    """
    check(waveforms)
    by_length = defaultdict(list)
    for number, waveform in enumerate(waveforms):
        by_length[len(waveform)].append(number)
    outputs: dict[int, tuple[Tensor, ...]] = {}
    # Padding to the longest of a batch would make a clip's features depend on the others in it.
    for length, numbers in by_length.items():
        padded_length = math.ceil(max(length, shortest) / multiple) * multiple
        batch_size = max(1, SAMPLES_AT_ONCE // padded_length)
        for start in range(0, len(numbers), batch_size):
            batch = numbers[start : start + batch_size]
            samples = torch.from_numpy(np.stack([waveforms[n] for n in batch]).astype(np.float32))
            tensors = run(F.pad(samples, (0, padded_length - length)).to(device))
            rows = zip(*[tensor.cpu() for tensor in tensors], strict=True)
            outputs.update(zip(batch, rows, strict=True))
    ordered = [outputs[number] for number in range(len(waveforms))]
    return tuple(map(list, zip(*ordered, strict=True)))


def pad_frames(clips: Sequence[Tensor]) -> np.ndarray:
    """(N, F, D) of N clips' (their own F, D) frames, padded with rows of NaN."""
    frames = torch.nn.utils.rnn.pad_sequence(list(clips), batch_first=True, padding_value=torch.nan)
    return np.asarray(frames)


def check(waveforms: Sequence[np.ndarray]) -> None:
    """Raises a UserError where there are no clips, or one is empty, not mono or not finite."""
    if not len(waveforms):
        raise UserError("waveforms: there are none; give at least one clip")
    for number, waveform in enumerate(waveforms):
        if waveform.ndim != 1 or not len(waveform) or not np.isfinite(waveform).all():
            raise UserError(
                f"waveforms: number {number} of {len(waveforms)}, of shape {waveform.shape}, is "
                "empty, not mono, or not finite; repair it, or leave it out"
            )
