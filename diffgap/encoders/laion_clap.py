"""CLAP by its authors' package laion-clap: the published checkpoints by name, or a local file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from diffgap.encoders.clap_audio import PREPROCESSING, RATE, SECONDS, prepare, weights_hash
from diffgap.encoders.strict import load_strictly
from diffgap.errors import ClipError, UserError, nearest, require

HUB = "lukewys/laion_clap"


@dataclass(frozen=True)
class Checkpoint:
    """A published checkpoint, and the model it is of."""

    file: str
    fusion: bool = False
    audio_tower: str = "HTSAT-tiny"


PUBLISHED = {
    "630k": Checkpoint("630k-best.pt"),
    "630k-audioset": Checkpoint("630k-audioset-best.pt"),
    "630k-fusion": Checkpoint("630k-fusion-best.pt", fusion=True),
    "630k-audioset-fusion": Checkpoint("630k-audioset-fusion-best.pt", fusion=True),
    "music": Checkpoint("music_audioset_epoch_15_esc_90.14.pt", audio_tower="HTSAT-base"),
    "music-speech": Checkpoint("music_speech_epoch_15_esc_89.25.pt", audio_tower="HTSAT-base"),
    "music-speech-audioset": Checkpoint(
        "music_speech_audioset_epoch_15_esc_89.98.pt", audio_tower="HTSAT-base"
    ),
}
DEFAULT = "630k-audioset"

DROPPED = ("text_branch.embeddings.position_ids",)
"""In the published files, and no longer in RoBERTa as transformers builds it."""


class LaionClapEncoder:
    """Frozen CLAP behind the `Encoder` protocol; use `load`."""

    name = "laion_clap"
    dimension = 512
    modalities: tuple[str, ...] = ("audio", "text")
    sample_rate = RATE
    resampler = "torchaudio"
    window: float | None = SECONDS
    frame_rate, frame_size = 0.0, 0

    def __init__(self, module: Any, source: str) -> None:
        self._module = module.eval()
        self.checkpoint_hash = weights_hash(module.model)
        self.preprocessing = {**PREPROCESSING, "resampler": self.resampler, "checkpoint": source}

    @classmethod
    def load(cls, checkpoint: str | None, device: str = "cpu") -> LaionClapEncoder:
        """Loads one of `PUBLISHED` by name, or a local .pt file.

        A local file is taken for the model of the published file of the same name, else for
        HTSAT-tiny without fusion.

        Raises:
            UserError: where there is no such checkpoint, or its weights do not fit the model.
        """
        source = checkpoint or DEFAULT
        described = _describe(source)
        with _quiet():
            laion_clap = require("laion_clap", "clap", "the encoder laion_clap")
            module = laion_clap.CLAP_Module(
                enable_fusion=described.fusion, device=device, amodel=described.audio_tower
            )
        path = Path(source) if source not in PUBLISHED else _download(described.file)
        load_strictly(module.model, path, drop=DROPPED)
        return cls(module, Path(source).name)

    @torch.inference_mode()
    def encode_audio(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        samples = torch.from_numpy(prepare(waveforms))
        found: Tensor = self._module.get_audio_embedding_from_data(x=samples, use_tensor=True)
        return np.asarray(F.normalize(found.float(), dim=-1).cpu())

    @torch.inference_mode()
    def encode_text(self, captions: Sequence[str]) -> np.ndarray:
        # A list of one has been squeezed to a vector of another shape: never send one.
        padded = [*captions, "a sound"] if len(captions) == 1 else list(captions)
        found: Tensor = self._module.get_text_embedding(padded, use_tensor=True)
        return np.asarray(F.normalize(found[: len(captions)].float(), dim=-1).cpu())

    def encode_video(self, videos: Sequence[np.ndarray]) -> np.ndarray:
        raise ClipError("CLAP has no video tower")


def _describe(source: str) -> Checkpoint:
    if source in PUBLISHED:
        return PUBLISHED[source]
    if not Path(source).is_file():
        raise UserError(
            f"--checkpoint: {source!r} is neither a published checkpoint of laion_clap "
            f"({nearest(source, PUBLISHED)}) nor a file"
        )
    by_file = {known.file: known for known in PUBLISHED.values()}
    return by_file.get(Path(source).name, Checkpoint(Path(source).name))


def _download(file: str) -> Path:
    hub = require("huggingface_hub", "clap", "downloading a checkpoint")
    try:
        return Path(hub.hf_hub_download(HUB, file))
    except OSError as error:
        raise UserError(
            f"--checkpoint: {file} cannot be had from {HUB}: {str(error).splitlines()[0]}; "
            "download it by hand and give its path"
        ) from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the prints of laion_clap's imports and constructors."""
    with redirect_stdout(StringIO()):
        yield
