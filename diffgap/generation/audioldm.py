"""AudioLDM behind the `Generator` protocol: sound from CLAP embeddings of sound or of text.

Liu et al., AudioLDM: Text-to-Audio Generation with Latent Diffusion Models (ICML 2023), as it is in
diffusers: a hub id such as cvssp/audioldm-s-full-v2, or a local folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F

from diffgap.errors import UserError, require
from diffgap.generation.base import Sampling
from diffgap.generation.latent import generators
from diffgap.pretrained.weights import some_of, weights_hash

DEFAULT = "cvssp/audioldm-s-full-v2"
PIPELINE = "AudioLDMPipeline"
VERSIONS = "0.30 to 0.42"
"""Of diffusers, that have the pipeline."""

NETWORKS = {
    "unet": ("diffusers", "UNet2DConditionModel"),
    "vae": ("diffusers", "AutoencoderKL"),
    "text_encoder": ("transformers", "ClapTextModelWithProjection"),
    "vocoder": ("transformers", "SpeechT5HifiGan"),
}
"""Components that have weights, and their packages and classes."""

BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")
"""Constants of the text tower, which some versions of transformers save and others do not."""

PROBLEMS = {
    "missing_keys": "lacks {}",
    "unexpected_keys": "holds {}, which the model does not have",
    "mismatched_keys": "has {} in another shape",
}
"""By what the loaders of both packages call them."""
BROKEN = (OSError, ValueError, RuntimeError, TypeError, KeyError, SafetensorError)
"""What the loaders of both packages raise for what they cannot load."""


class AudioLDM:
    """A frozen generator; use `load`."""

    name = "audioldm"
    tokens: int | None = None
    seconds = 10.24
    """Of the clips it was trained on."""
    defaults = Sampling(steps=10, guidance=2.5)
    batch = 8

    def __init__(self, pipeline: Any) -> None:
        pipeline.set_progress_bar_config(disable=True)
        self._pipeline = pipeline
        self.dimension = int(pipeline.text_encoder.config.projection_dim)
        self.rate = int(pipeline.vocoder.config.sampling_rate)
        networks = nn.ModuleDict({part: getattr(pipeline, part) for part in NETWORKS})
        self.weights_hash = weights_hash(networks.eval())
        # With no text for a condition, as it was trained to do without one.
        self._without = torch.from_numpy(self.encode_text([""]))

    @classmethod
    def load(cls, weights: str | None, device: str = "cpu") -> AudioLDM:
        """Loads a hub id or a local folder; safetensors are preferred.

        Raises:
            UserError: where there is no such model, it is another pipeline's, or a component or a
                weight of one is missing, unexpected or misshapen.
        """
        purpose = "the generator audioldm"
        libraries = {
            name: require(name, "generate", purpose) for name in ("transformers", "diffusers")
        }
        source = weights or DEFAULT
        with _quiet(libraries):
            kind = _pipeline_class(libraries["diffusers"])
            _check_index(kind, source)
            networks = {
                part: _network(getattr(libraries[package], name), source, part)
                for part, (package, name) in NETWORKS.items()
            }
            try:
                pipeline = kind.from_pretrained(source, **networks)
            except BROKEN as error:
                raise _refusal(source, f"cannot be loaded: {_line(error)}") from None
        _check_fit(pipeline, source)
        return cls(pipeline.to(device))

    @torch.inference_mode()
    def generate(
        self, conditions: np.ndarray, seeds: Sequence[int], sampling: Sampling
    ) -> np.ndarray:
        """(B, 512) CLAP embeddings to (B, samples), each clip from its own seed."""
        assert conditions.shape == (len(seeds), self.dimension), "an embedding and a seed a clip"
        found = self._pipeline(
            prompt_embeds=torch.from_numpy(conditions).float(),
            negative_prompt_embeds=self._without.expand(len(seeds), -1),
            audio_length_in_s=self.seconds,
            num_inference_steps=sampling.steps,
            guidance_scale=sampling.guidance,
            generator=generators(seeds),
        )
        return np.clip(found.audios, -1, 1).astype(np.float32)

    @torch.inference_mode()
    def encode_text(self, prompts: Sequence[str]) -> np.ndarray:
        """(B, 512) unit vectors by AudioLDM's own text tower: what it makes of plain text.

        A bridge's embeddings fit where its encoder gives these same vectors.
        """
        tower = self._pipeline.text_encoder
        tokens = self._pipeline.tokenizer(
            list(prompts),
            padding=True,
            truncation=True,
            max_length=_longest(tower),
            return_tensors="pt",
        ).to(tower.device)
        found: Tensor = tower(
            input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
        ).text_embeds
        return np.asarray(F.normalize(found, dim=-1).cpu())


def _longest(tower: Any) -> int:
    """Tokens of a text; RoBERTa counts places from 2."""
    return int(tower.config.max_position_embeddings) - 2


def _pipeline_class(diffusers: Any) -> Any:
    try:
        return getattr(diffusers, PIPELINE)
    except (AttributeError, ImportError, RuntimeError):
        raise UserError(
            f"the generator audioldm needs {PIPELINE}, which diffusers {diffusers.__version__} "
            f"does not have; versions {VERSIONS} do"
        ) from None


def _check_index(kind: Any, source: str) -> None:
    """The pipeline's table of contents, before anything large is loaded."""
    path = Path(source)
    if path.is_file() or (source.startswith(("/", "~", ".")) and not path.is_dir()):
        raise _refusal(source, "is no folder")
    try:
        index = kind.load_config(source)
    except BROKEN as error:
        raise _refusal(source, f"cannot be loaded: {_line(error)}") from None
    if index.get("_class_name") != PIPELINE:
        raise _refusal(source, f"is of {index.get('_class_name')}, not of {PIPELINE}")
    wanted = {**NETWORKS, "tokenizer": None, "scheduler": None}
    for part, named in wanted.items():
        found = index.get(part)
        if not found or found[0] is None:
            raise _refusal(source, f"has no {part}")
        if named is not None and tuple(found) != named:
            raise _refusal(source, f"has {found[1]} for its {part}, not {named[1]}")


def _network(kind: Any, source: str, part: str) -> Any:
    """A component in float32, with all of its weights; its package would make missing ones up."""
    # diffusers warns that accelerate is not installed, unless told not to use it.
    quiet = {"low_cpu_mem_usage": False} if kind.__module__.startswith("diffusers.") else {}
    try:
        model, found = kind.from_pretrained(
            source,
            subfolder=part,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below, by name
            **quiet,
        )
    except BROKEN as error:
        raise _refusal(source, f"has no {part} that loads: {_line(error)}") from None
    problems = [
        f"--weights: {source}: {part} {what.format(some_of(names))}"
        for kept, what in PROBLEMS.items()
        if (names := _names(found[kept]))
    ]
    if problems:
        raise UserError(*problems)
    return model.float()


def _check_fit(pipeline: Any, source: str) -> None:
    """Components that load one by one, and not with each other."""
    tower, unet = pipeline.text_encoder.config, pipeline.unet.config
    taken = unet.projection_class_embeddings_input_dim
    if taken != tower.projection_dim:
        raise _refusal(
            source,
            f"has a unet for embeddings of {taken}, and text_encoder's have {tower.projection_dim}",
        )
    # transformers makes an empty tokenizer of a missing one.
    if len(pipeline.tokenizer) != tower.vocab_size:
        raise _refusal(
            source,
            f"has a tokenizer of {len(pipeline.tokenizer)} tokens, and its text_encoder "
            f"knows {tower.vocab_size}: files of the tokenizer are missing",
        )


def _names(found: Any) -> list[str]:
    """Of weights; where shapes differ, they come with both of them."""
    names = {name if isinstance(name, str) else name[0] for name in found}
    return sorted(name for name in names if not name.endswith(BUFFERS))


def _refusal(source: str, what: str) -> UserError:
    return UserError(
        f"--weights: {source!r} {what}; give a hub id such as {DEFAULT}, or a folder that "
        "save_pretrained wrote"
    )


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(". ")


@contextmanager
def _quiet(libraries: Mapping[str, Any]) -> Iterator[None]:
    """Without progress bars, and without the warning that the pipeline is no longer mended."""
    logs = [library.utils.logging for library in libraries.values()]
    before = [log.get_verbosity() for log in logs]
    for log in logs:
        log.disable_progress_bar()
        log.set_verbosity_error()
    try:
        yield
    finally:
        for log, verbosity in zip(logs, before, strict=True):
            log.set_verbosity(verbosity)
