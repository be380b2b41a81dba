"""AudioLDM as a generator: sound from CLAP embeddings of sound or of text.

Liu et al., AudioLDM: Text-to-Audio Generation with Latent Diffusion Models (ICML 2023), as it is in
diffusers: a hub id such as cvssp/audioldm-s-full-v2, or a local folder.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F

from diffgap.compat.torch_load import weights_only
from diffgap.errors import UserError, require
from diffgap.generation.base import Sampling
from diffgap.generation.latent import generators
from diffgap.pretrained.weights import some_of, weights_hash

DEFAULT = "cvssp/audioldm-s-full-v2"
PIPELINE = "AudioLDMPipeline"
VERSIONS = "0.35 to 0.42"  # of diffusers, that have the pipeline

NETWORKS = {
    "unet": ("diffusers", "UNet2DConditionModel"),
    "vae": ("diffusers", "AutoencoderKL"),
    "text_encoder": ("transformers", "ClapTextModelWithProjection"),
    "vocoder": ("transformers", "SpeechT5HifiGan"),
}
"""Components with weights: package and class of each."""
TOKENIZERS = ("RobertaTokenizer", "RobertaTokenizerFast")
"""Names of its tokenizer, which versions of transformers have changed."""
CODE_KEYS = ("auto_map", "custom_pipeline", "trust_remote_code")
"""By which a component's config asks to run code of its folder."""

BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")
"""Constants of the text tower, which some versions of transformers save and others do not."""

PROBLEMS = {
    "missing_keys": "lacks {}",
    "unexpected_keys": "holds {}, which the model does not have",
    "mismatched_keys": "has {} in another shape",
}
"""What is wrong with weights, by what the loaders of both packages call them."""
BROKEN = (
    OSError, ValueError, RuntimeError, TypeError, KeyError, SafetensorError,
    pickle.UnpicklingError,
)  # fmt: skip
"""What the loaders of both packages raise for files that they cannot load."""


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
        # Guidance needs the embedding of no condition: in training that was the empty text.
        self._unconditional = torch.from_numpy(self.encode_text([""]))

    @classmethod
    def load(cls, weights: str | None, device: str = "cpu") -> AudioLDM:
        """Loads a hub id or a local folder; safetensors are preferred, and no code is run.

        Raises:
            UserError: where there is no such model, it is another pipeline's or asks to run code,
                or a component or a weight of one is missing, unexpected or misshapen.
        """
        packages = ("transformers", "diffusers")
        libraries = {name: require(name, "generate", "the generator audioldm") for name in packages}
        source = weights or DEFAULT
        with _quiet(libraries):
            pipeline_class = _pipeline_class(libraries["diffusers"])
            index = _checked_index(pipeline_class, source)
            with weights_only():
                parts = {}
                for part, (package, name) in NETWORKS.items():
                    parts[part] = _load_network(getattr(libraries[package], name), source, part)
            parts |= _load_others(libraries, index, source)
            # Not by its from_pretrained: before 0.36 that runs any module that the index names.
            pipeline = pipeline_class(**parts)
        _check_fit(pipeline, source)
        return cls(pipeline.to(device))

    @torch.inference_mode()
    def generate(
        self, conditions: np.ndarray, seeds: Sequence[int], sampling: Sampling
    ) -> np.ndarray:
        """(B, 512) CLAP embeddings to (B, samples), each clip from its own seed."""
        assert conditions.shape == (len(seeds), self.dimension), "an embedding and a seed a clip"
        output = self._pipeline(
            prompt_embeds=torch.from_numpy(conditions).float(),
            negative_prompt_embeds=self._unconditional.expand(len(seeds), -1),
            audio_length_in_s=self.seconds,
            num_inference_steps=sampling.steps,
            guidance_scale=sampling.guidance,
            generator=generators(seeds),
        )
        return np.clip(output.audios, -1, 1).astype(np.float32)

    @torch.inference_mode()
    def encode_text(self, prompts: Sequence[str]) -> np.ndarray:
        """(B, 512) unit vectors by AudioLDM's own text tower.

        A bridge fits the generator if its encoder gives these same vectors.
        """
        tower = self._pipeline.text_encoder
        tokens = self._pipeline.tokenizer(
            list(prompts),
            padding=True,
            truncation=True,
            max_length=tower.config.max_position_embeddings - 2,  # RoBERTa counts them from 2
            return_tensors="pt",
        ).to(tower.device)
        embeddings: Tensor = tower(
            input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
        ).text_embeds
        return np.asarray(F.normalize(embeddings, dim=-1).cpu())


def _pipeline_class(diffusers: Any) -> Any:
    try:
        return getattr(diffusers, PIPELINE)
    except (AttributeError, ImportError, RuntimeError):
        raise UserError(
            f"the generator audioldm needs {PIPELINE}, which diffusers {diffusers.__version__} "
            f"does not have; versions {VERSIONS} do"
        ) from None


def _checked_index(pipeline_class: Any, source: str) -> dict[str, Any]:
    """The pipeline's table of contents, checked before anything large is loaded."""
    path = Path(source)
    if path.is_file() or (source.startswith(("/", "~", ".")) and not path.is_dir()):
        raise _refusal(source, "is not a folder")
    try:
        index = pipeline_class.load_config(source)
    except BROKEN as error:
        raise _refusal(source, f"cannot be loaded: {_line(error)}") from None
    if index.get("_class_name") != PIPELINE:
        raise _refusal(source, f"is of {index.get('_class_name')}, not of {PIPELINE}")
    for part in (*NETWORKS, "tokenizer", "scheduler"):
        entry = index.get(part)
        if not entry or entry == [None, None]:
            raise _refusal(source, f"has no {part}")
        if not isinstance(entry, list | tuple) or len(entry) != 2:
            raise _refusal(source, f"has {entry!r} for its {part}, not a package and a class")
        expected = NETWORKS.get(part)
        if expected is not None and tuple(entry) != expected:
            raise _refusal(source, f"has {entry[1]} for its {part}, not {expected[1]}")
    _refuse_code(source, index)
    return dict(index)


def _refuse_code(source: str, index: Mapping[str, Any]) -> None:
    """Refuses what asks to run code of the model's own: nothing here would run it."""
    for part, entry in index.items():
        named = isinstance(entry, list | tuple) and entry and entry[0] is not None
        if named and entry[0] not in ("diffusers", "transformers"):
            raise _refusal(source, f"names {entry[0]!r}, code of its own, for its {part}")
    if not Path(source).is_dir():
        return
    for file in sorted(Path(source).rglob("*")):
        if file.suffix == ".py":
            raise _refusal(source, f"holds code: {file.relative_to(source)}")
        if file.suffix == ".json" and (key := _code_key(file)):
            raise _refusal(source, f"asks to run code: {key} in {file.relative_to(source)}")


def _code_key(file: Path) -> str | None:
    """The first key of a config that asks to run code; None where there is none."""
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None  # whoever loads it says so
    if not isinstance(content, dict):
        return None
    return next((key for key in CODE_KEYS if key in content), None)


def _load_others(
    libraries: Mapping[str, Any], index: Mapping[str, Any], source: str
) -> dict[str, Any]:
    """The components without weights, of classes that are looked up by name, not imported."""
    tokenizer, scheduler = index["tokenizer"][1], index["scheduler"][1]
    if tokenizer not in TOKENIZERS:
        raise _refusal(source, f"has {tokenizer} for its tokenizer, not {TOKENIZERS[0]}")
    schedulers = libraries["diffusers"].schedulers
    scheduler_class = getattr(schedulers, str(scheduler), None)
    base = schedulers.SchedulerMixin
    if not (isinstance(scheduler_class, type) and issubclass(scheduler_class, base)):
        raise _refusal(source, f"has {scheduler} for its scheduler, which diffusers does not have")
    classes = {
        "tokenizer": getattr(libraries["transformers"], tokenizer),
        "scheduler": scheduler_class,
    }
    parts = {}
    for part, part_class in classes.items():
        try:
            parts[part] = part_class.from_pretrained(source, subfolder=part)
        except BROKEN as error:
            raise _refusal(source, f"cannot be loaded: {_line(error)}") from None
    return parts


def _load_network(model_class: Any, source: str, part: str) -> Any:
    """A component in float32, with all of its weights."""
    # diffusers warns that accelerate is not installed, unless told not to use it.
    is_diffusers = model_class.__module__.startswith("diffusers.")
    quiet = {"low_cpu_mem_usage": False} if is_diffusers else {}
    try:
        model, loading = model_class.from_pretrained(
            source,
            subfolder=part,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below, by name
            **quiet,
        )
    except BROKEN as error:
        raise _refusal(source, f"has no {part} that loads: {_line(error)}") from None
    # Both packages only warn of missing weights, and draw them at random.
    problems = []
    for key, template in PROBLEMS.items():
        names = _weight_names(loading[key])
        if names:
            problems.append(f"--weights: {source}: {part} {template.format(some_of(names))}")
    if problems:
        raise UserError(*problems)
    return model.float()


def _check_fit(pipeline: Any, source: str) -> None:
    """Refuses components that each load, but do not fit each other."""
    tower, unet = pipeline.text_encoder.config, pipeline.unet.config
    dimension = unet.projection_class_embeddings_input_dim
    if dimension != tower.projection_dim:
        problem = f"of {dimension}, and text_encoder's have {tower.projection_dim}"
        raise _refusal(source, f"has a unet for embeddings {problem}")
    # transformers builds an empty tokenizer where the files are missing.
    tokens = len(pipeline.tokenizer)
    if tokens != tower.vocab_size:
        problem = f"{tokens} tokens, and its text_encoder knows {tower.vocab_size}"
        raise _refusal(source, f"has a tokenizer of {problem}: files of the tokenizer are missing")


def _weight_names(entries: Any) -> list[str]:
    """Names of weights, without constants."""
    # An entry is a name, or a tuple of it and both shapes where they differ.
    names = {entry if isinstance(entry, str) else entry[0] for entry in entries}
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
    """Without progress bars, and without the warning that the pipeline is no longer maintained."""
    verbosities = []
    for library in libraries.values():
        log = library.utils.logging
        verbosities.append((log, log.get_verbosity()))
        log.disable_progress_bar()
        log.set_verbosity_error()
    try:
        yield
    finally:
        for log, verbosity in verbosities:
            log.set_verbosity(verbosity)
