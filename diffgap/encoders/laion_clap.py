"""CLAP in its authors' package laion_clap: a published checkpoint by name, or a local file."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffgap.encoders.clap_audio import PREPROCESSING, RATE, SECONDS, preprocess
from diffgap.encoders.vectors import unit_vectors
from diffgap.errors import ClipError, UserError, nearest, require
from diffgap.pretrained.weights import load_strictly, weights_hash

HUB = "lukewys/laion_clap"


TINY, TINY_FUSION, BASE = ("HTSAT-tiny", False), ("HTSAT-tiny", True), ("HTSAT-base", False)
PUBLISHED = {
    "630k-best": TINY,
    "630k-audioset-best": TINY,
    "630k-fusion-best": TINY_FUSION,
    "630k-audioset-fusion-best": TINY_FUSION,
    "music_audioset_epoch_15_esc_90.14": BASE,
    "music_speech_epoch_15_esc_89.25": BASE,
    "music_speech_audioset_epoch_15_esc_89.98": BASE,
}
"""Audio tower, and whether it has fusion, by the names of their files without .pt."""
DEFAULT = "630k-audioset-best"
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
        if source not in PUBLISHED and not Path(source).is_file():
            raise UserError(
                f"--checkpoint: {source!r} is neither a published checkpoint of laion_clap "
                f"({nearest(source, PUBLISHED)}) nor a file"
            )
        audio_tower, fusion = PUBLISHED.get(Path(source).name.removesuffix(".pt"), TINY)
        module = _build(audio_tower, fusion, device)
        path = _download(source) if source in PUBLISHED else Path(source)
        load_strictly(module.model, path, drop=DROPPED)
        return cls(module, Path(source).name)

    @torch.inference_mode()
    def encode_audio(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        samples = torch.from_numpy(preprocess(waveforms))
        return unit_vectors(self._module.get_audio_embedding_from_data(x=samples, use_tensor=True))

    @torch.inference_mode()
    def encode_text(self, captions: Sequence[str]) -> np.ndarray:
        # A list of one has been squeezed to a vector of another shape: never send one.
        padded = [*captions, "a sound"] if len(captions) == 1 else list(captions)
        vectors = self._module.get_text_embedding(padded, use_tensor=True)
        return unit_vectors(vectors[: len(captions)])

    def encode_video(self, videos: Sequence[np.ndarray]) -> np.ndarray:
        raise ClipError("CLAP has no video tower")


def _build(audio_tower: str, fusion: bool, device: str) -> Any:
    """The package's own module, with random weights."""
    # laion_clap prints and warns on import and construction.
    with redirect_stdout(StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers = require("transformers", "clap", "the encoder laion_clap")
        transformers.utils.logging.disable_progress_bar()
        try:
            # Whatever the checkpoint, importing it loads three tokenizers, constructing it RoBERTa.
            laion_clap = require("laion_clap", "clap", "the encoder laion_clap")
            return laion_clap.CLAP_Module(enable_fusion=fusion, device=device, amodel=audio_tower)
        except OSError as error:
            raise UserError(
                "the encoder laion_clap loads bert-base-uncased, roberta-base and "
                f"facebook/bart-base from the hub: {str(error).splitlines()[0]}; run it once "
                "with network access, or use hf_clap"
            ) from None


def _download(name: str) -> Path:
    hub = require("huggingface_hub", "clap", "downloading a checkpoint")
    try:
        return Path(hub.hf_hub_download(HUB, f"{name}.pt"))
    except OSError as error:
        raise UserError(
            f"--checkpoint: {name}.pt cannot be downloaded from {HUB}: "
            f"{str(error).splitlines()[0]}; download it by hand and give its path"
        ) from None
