"""CLAP in transformers: a hub id such as laion/clap-htsat-unfused, or a local folder."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffgap.compat.torch_load import weights_only
from diffgap.encoders.clap_audio import PREPROCESSING, RATE, SECONDS, TOKENS, preprocess
from diffgap.encoders.vectors import unit_vectors
from diffgap.errors import ClipError, UserError, require
from diffgap.pretrained.weights import weights_hash

DEFAULT = "laion/clap-htsat-unfused"


class HFClapEncoder:
    """Frozen CLAP behind the `Encoder` protocol; use `load`."""

    name = "hf_clap"
    modalities: tuple[str, ...] = ("audio", "text")
    sample_rate = RATE
    resampler = "scipy"
    window: float | None = SECONDS
    frame_rate, frame_size = 0.0, 0

    def __init__(self, model: Any, features: Any, tokenizer: Any, source: str) -> None:
        self._model, self._features, self._tokenizer = model.eval(), features, tokenizer
        self.dimension = int(model.config.projection_dim)
        self.checkpoint_hash = weights_hash(model)
        self.preprocessing = {**PREPROCESSING, "resampler": self.resampler, "checkpoint": source}

    @classmethod
    def load(cls, checkpoint: str | None, device: str = "cpu") -> HFClapEncoder:
        """Loads a hub id or a local folder.

        Raises:
            UserError: where there is no such model, or it is not CLAP.
        """
        transformers = require("transformers", "clap", "the encoder hf_clap")
        source = checkpoint or DEFAULT
        transformers.utils.logging.disable_progress_bar()  # the project shows its own progress
        try:
            with weights_only():
                model = transformers.ClapModel.from_pretrained(source).to(device)
            features = transformers.ClapFeatureExtractor.from_pretrained(source)
            # Unless it is forbidden, a folder may ask to run code of its own.
            tokenizer = transformers.AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        except (OSError, ValueError, RuntimeError, pickle.UnpicklingError) as error:
            raise UserError(
                f"--checkpoint: {source!r} cannot be loaded as a CLAP model: "
                f"{str(error).splitlines()[0]}; give a hub id such as {DEFAULT}, or a folder that "
                "save_pretrained wrote"
            ) from None
        name = source if not Path(source).exists() else Path(source).name
        return cls(model, features, tokenizer, name)

    @torch.inference_mode()
    def encode_audio(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        inputs = self._features(
            list(preprocess(waveforms)),
            sampling_rate=RATE,
            return_tensors="pt",
            truncation="rand_trunc",  # no window is longer; "fusion" would return four mels
        )
        device = self._model.device
        # "longer" steers the fused models' own handling of long audio; no window is longer.
        is_longer = torch.zeros(len(waveforms), 1, dtype=torch.bool, device=device)
        output = self._model.get_audio_features(
            input_features=inputs["input_features"].to(device), is_longer=is_longer
        )
        return _vectors(output)

    @torch.inference_mode()
    def encode_text(self, captions: Sequence[str]) -> np.ndarray:
        tokens = self._tokenizer(
            list(captions),
            padding="max_length",  # as laion_clap does: the same length, the same rounding
            truncation=True,
            max_length=TOKENS,
            return_tensors="pt",
        ).to(self._model.device)
        output = self._model.get_text_features(
            input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
        )
        return _vectors(output)

    def encode_video(self, videos: Sequence[np.ndarray]) -> np.ndarray:
        raise ClipError("CLAP has no video tower")


def _vectors(output: Any) -> np.ndarray:
    # transformers 4 returns the tensor, 5 an object that holds it.
    return unit_vectors(getattr(output, "pooler_output", output))
