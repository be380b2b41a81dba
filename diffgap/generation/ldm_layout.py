"""Checkpoints in the layout of latent diffusion's own code, into the models of diffusers.

The layout is that of Rombach et al., High-Resolution Image Synthesis with Latent Diffusion Models
(CVPR 2022), and of Stable Diffusion 1: a U-Net under ``model.diffusion_model.``, its autoencoder
under ``first_stage_model.``. Sizes are read off the weights.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffgap.errors import UserError
from diffgap.pretrained.weights import NUMPY_SCALARS, read_state, some_of

UNET, VAE = "model.diffusion_model.", "first_stage_model."
GROUPS = 32
"""Of every normalisation in the layout."""

SCHEDULE = frozenset(
    {
        "betas",
        "alphas_cumprod",
        "alphas_cumprod_prev",
        "sqrt_alphas_cumprod",
        "sqrt_one_minus_alphas_cumprod",
        "log_one_minus_alphas_cumprod",
        "sqrt_recip_alphas_cumprod",
        "sqrt_recipm1_alphas_cumprod",
        "posterior_variance",
        "posterior_log_variance_clipped",
        "posterior_mean_coef1",
        "posterior_mean_coef2",
    }
)
"""The noise schedule, kept among the weights and known without them."""
LEFTOVERS = ("model_ema.", "loss.", "first_stage_model.loss.")
"""What training leaves in a checkpoint and inference does not load."""

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
UNET_ENDS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
VAE_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}
"""Names in diffusers to names in the layout."""


@dataclass(frozen=True)
class Checkpoint:
    """Weights by their names in the layout, without what training left there."""

    path: Path
    weights: Mapping[str, Tensor]
    betas: Tensor | None
    """The noise schedule it was trained with, where it is kept."""

    @classmethod
    def read(cls, path: Path) -> Checkpoint:
        """Reads the weights and nothing else: no code in the file is run.

        Raises:
            UserError: where there is no such file, or no weights in it.
        """
        if not path.is_file():
            raise UserError(f"--weights: no file {path}; give the path of a checkpoint")
        with torch.serialization.safe_globals(_inert(path)):
            found = read_state(path)
        kept = {
            name: value
            for name, value in found.items()
            if name not in SCHEDULE and not name.startswith(LEFTOVERS)
        }
        return cls(path, kept, found.get("betas"))

    def size(self, name: str, axis: int) -> int:
        """A weight's length along an axis; UserError where there is no such weight."""
        if name in self.weights and self.weights[name].ndim > axis:
            return self.weights[name].shape[axis]
        raise UserError(
            f"{self.path}: lacks {name}; it holds {some_of(list(self.weights)) or 'nothing'}, "
            "which is no latent diffusion model"
        )

    def has(self, prefix: str) -> bool:
        return any(name.startswith(prefix) for name in self.weights)

    def count(self, prefix: str) -> int:
        """How many numbers from 0 on follow this prefix."""
        number = 0
        while self.has(f"{prefix}{number}."):
            number += 1
        return number

    def load_into(self, model: nn.Module, names: Mapping[str, str]) -> None:
        """Every weight, into a model that was built without storage (on the device meta).

        Args:
            model: takes the weights, in float32.
            names: its own name of each weight, by the name in the layout.

        Raises:
            UserError: naming every missing, unexpected and misshapen weight as in the layout.
        """
        wanted = model.state_dict()
        assert sorted(names.values()) == sorted(wanted), "each of the model's weights has a name"
        shapes = {name: _original_shape(name, wanted[own]) for name, own in names.items()}
        if problems := self._problems(shapes):
            raise UserError(*problems)
        model.load_state_dict(
            {
                own: self.weights[name].reshape(wanted[own].shape).float()
                for name, own in names.items()
            },
            assign=True,
        )

    def _problems(self, shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
        problems = []
        if missing := [name for name in shapes if name not in self.weights]:
            problems.append(f"{self.path}: lacks {some_of(missing)}")
        if unexpected := [name for name in self.weights if name not in shapes]:
            problems.append(
                f"{self.path}: holds {some_of(unexpected)}, which the model does not have"
            )
        problems += [
            f"{self.path}: {name} has shape {tuple(self.weights[name].shape)}, not {shape}"
            for name, shape in shapes.items()
            if name in self.weights and tuple(self.weights[name].shape) != shape
        ]
        return problems


def unet_config(checkpoint: Checkpoint, heads: int) -> dict[str, Any]:
    """What diffusers' UNet2DConditionModel is built from."""
    inputs = f"{UNET}input_blocks."
    total = checkpoint.count(inputs)
    halvings = [n for n in range(total) if checkpoint.has(f"{inputs}{n}.0.op.")]
    stride = halvings[0] if halvings else total  # blocks of a level, and the halving after them
    firsts = [f"{inputs}{1 + stride * level}." for level in range(len(halvings) + 1)]
    attention = [checkpoint.has(f"{first}1.") for first in firsts]
    middle = f"{UNET}middle_block.1.transformer_blocks.0.attn2.to_k.weight"
    return {
        "in_channels": checkpoint.size(f"{inputs}0.0.weight", 1),
        "out_channels": checkpoint.size(f"{UNET}out.2.weight", 0),
        "block_out_channels": tuple(
            checkpoint.size(f"{first}0.in_layers.2.weight", 0) for first in firsts
        ),
        "layers_per_block": stride - 1,
        "down_block_types": tuple(
            "CrossAttnDownBlock2D" if has else "DownBlock2D" for has in attention
        ),
        "up_block_types": tuple(
            "CrossAttnUpBlock2D" if has else "UpBlock2D" for has in reversed(attention)
        ),
        "cross_attention_dim": checkpoint.size(middle, 1),
        "attention_head_dim": heads,  # diffusers' name for the number of heads
        "norm_num_groups": GROUPS,
    }


def vae_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """What diffusers' AutoencoderKL is built from."""
    levels = checkpoint.count(f"{VAE}encoder.down.")
    return {
        "in_channels": checkpoint.size(f"{VAE}encoder.conv_in.weight", 1),
        "out_channels": checkpoint.size(f"{VAE}decoder.conv_out.weight", 0),
        "block_out_channels": tuple(
            checkpoint.size(f"{VAE}encoder.down.{level}.block.0.conv1.weight", 0)
            for level in range(levels)
        ),
        "layers_per_block": checkpoint.count(f"{VAE}encoder.down.0.block."),
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "latent_channels": checkpoint.size(f"{VAE}post_quant_conv.weight", 1),
        "norm_num_groups": GROUPS,
    }


def unet_name(config: Mapping[str, Any]) -> Callable[[str], str]:
    """A weight's name in the layout, by its name in diffusers' UNet2DConditionModel."""
    stride = config["layers_per_block"] + 1
    upsampler = [2 if kind == "CrossAttnUpBlock2D" else 1 for kind in config["up_block_types"]]

    def named(name: str) -> str:
        match name.split("."):
            case ["down_blocks", level, "downsamplers", _, "conv", kind]:
                return f"{UNET}input_blocks.{(int(level) + 1) * stride}.0.op.{kind}"
            case ["down_blocks", level, layer, number, *inner]:
                place = 1 + int(level) * stride + int(number)
                return f"{UNET}input_blocks.{place}.{_layer(layer, inner)}"
            case ["up_blocks", level, "upsamplers", _, "conv", kind]:
                place = (int(level) + 1) * stride - 1
                return f"{UNET}output_blocks.{place}.{upsampler[int(level)]}.conv.{kind}"
            case ["up_blocks", level, layer, number, *inner]:
                place = int(level) * stride + int(number)
                return f"{UNET}output_blocks.{place}.{_layer(layer, inner)}"
            case ["mid_block", "attentions", _, *inner]:
                return f"{UNET}middle_block.1.{'.'.join(inner)}"
            case ["mid_block", _, number, part, kind]:
                return f"{UNET}middle_block.{2 * int(number)}.{RESNET[part]}.{kind}"
        end, _, kind = name.rpartition(".")
        return f"{UNET}{UNET_ENDS[end]}.{kind}"

    return named


def vae_name(config: Mapping[str, Any]) -> Callable[[str], str]:
    """A weight's name in the layout, by its name in diffusers' AutoencoderKL."""
    last = len(config["block_out_channels"]) - 1

    def named(name: str) -> str:
        match name.replace("conv_shortcut", "nin_shortcut").split("."):
            case [side, "mid_block", "attentions", _, *part, kind]:
                return f"{VAE}{side}.mid.attn_1.{VAE_ATTENTION['.'.join(part)]}.{kind}"
            case [side, "mid_block", _, number, part, kind]:
                return f"{VAE}{side}.mid.block_{int(number) + 1}.{part}.{kind}"
            case [side, "down_blocks", level, layer, number, *part]:
                return f"{VAE}{side}.down.{level}.{_sampler_or_block(layer, number, part)}"
            case [side, "up_blocks", level, layer, number, *part]:
                up = last - int(level)  # the layout counts from the finest
                return f"{VAE}{side}.up.{up}.{_sampler_or_block(layer, number, part)}"
            case [side, "conv_norm_out", kind]:
                return f"{VAE}{side}.norm_out.{kind}"
        return f"{VAE}{name}"

    return named


def _layer(layer: str, inner: list[str]) -> str:
    if layer == "attentions":
        return f"1.{'.'.join(inner)}"
    part, kind = inner
    return f"0.{RESNET[part]}.{kind}"


def _sampler_or_block(layer: str, number: str, part: list[str]) -> str:
    outer = f"block.{number}" if layer == "resnets" else layer.removesuffix("rs")
    return ".".join([outer, *part])


def _original_shape(name: str, wanted: Tensor) -> tuple[int, ...]:
    """The autoencoder's attention is of 1x1 convolutions there, and linear in diffusers."""
    shape = tuple(wanted.shape)
    return (*shape, 1, 1) if ".attn_1." in name and len(shape) == 2 else shape


class _Inert:
    """Stands for any class or function in a checkpoint that is not among its weights."""

    def __new__(cls, *args: Any, **kwargs: Any) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


def _inert(path: Path) -> list[Any]:
    """Stand-ins for what lies beside the weights: callbacks, settings, states of optimisers.

    Lightning keeps its own classes in checkpoints. None of them is imported, and a stand-in among
    the weights is refused.
    """
    try:
        with torch.serialization.safe_globals(NUMPY_SCALARS):
            unknown = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except (ValueError, RuntimeError, zipfile.BadZipFile, pickle.UnpicklingError):
        return []  # no checkpoint: reading it will say so
    return [(_Inert, name) for name in unknown]
