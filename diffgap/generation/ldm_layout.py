"""Checkpoints in the layout of latent diffusion's own code, loaded into models of diffusers.

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
from diffgap.pretrained.weights import NUMPY_SCALARS, read_state, some_of, weight_problems

UNET, VAE = "model.diffusion_model.", "first_stage_model."
GROUPS = 32
"""Groups of every normalisation in the layout."""

SCHEDULE = {
    "betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod", "log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod", "posterior_variance", "posterior_log_variance_clipped",
    "posterior_mean_coef1", "posterior_mean_coef2",
}  # fmt: skip
"""The noise schedule: saved among the weights, though it follows from a few settings."""
LEFTOVERS = ("model_ema.", "loss.", "first_stage_model.loss.")
"""Prefixes of what training leaves in a checkpoint and inference does not load."""

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
ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
"""Names in diffusers to names in the layout."""


@dataclass(frozen=True)
class Checkpoint:
    """Weights by their names in the layout, without what training leaves there."""

    path: Path
    weights: Mapping[str, Tensor]
    betas: Tensor | None
    """The noise schedule it was trained with, where the file has it."""

    @classmethod
    def read(cls, path: Path) -> Checkpoint:
        """Reads the weights and nothing else; no code in the file is run.

        Raises:
            UserError: where there is no such file, or no weights in it.
        """
        if not path.is_file():
            raise UserError(f"--weights: no file {path}; give the path of a checkpoint")
        with torch.serialization.safe_globals(_inert(path)):
            state = read_state(path)
        weights = {}
        for name, value in state.items():
            if name not in SCHEDULE and not name.startswith(LEFTOVERS):
                weights[name] = value
        return cls(path, weights, state.get("betas"))

    def size(self, name: str, axis: int) -> int:
        """A weight's length along an axis; UserError where there is no such weight."""
        if name in self.weights and self.weights[name].ndim > axis:
            return self.weights[name].shape[axis]
        raise UserError(
            f"{self.path}: lacks {name}; it holds {some_of(list(self.weights)) or 'nothing'}, "
            "which is no latent diffusion model"
        )

    def has(self, prefix: str) -> bool:
        """Whether any weight's name starts so."""
        return any(name.startswith(prefix) for name in self.weights)

    def count(self, prefix: str) -> int:
        """How many modules are numbered from 0 on after this prefix."""
        number = 0
        while self.has(f"{prefix}{number}."):
            number += 1
        return number

    def load_into(self, model: nn.Module, names: Mapping[str, str]) -> None:
        """Loads every weight, in float32, into a model built without storage (device meta).

        Args:
            model: of diffusers.
            names: the model's name of each weight, by the name in the layout.

        Raises:
            UserError: naming every missing, unexpected and misshapen weight as in the layout.
        """
        parameters = model.state_dict()
        assert sorted(names.values()) == sorted(parameters), "each weight of the model has a name"
        shapes = {name: _original_shape(name, parameters[target]) for name, target in names.items()}
        if problems := weight_problems(self.path, self.weights, shapes):
            raise UserError(*problems)
        state = {}
        for name, target in names.items():
            state[target] = self.weights[name].reshape(parameters[target].shape).float()
        # Assigned, not copied: parameters on meta have no storage to copy to.
        model.load_state_dict(state, assign=True)


def unet_config(checkpoint: Checkpoint, heads: int) -> dict[str, Any]:
    """Arguments of diffusers' UNet2DConditionModel, as the weights' shapes give them."""
    inputs = f"{UNET}input_blocks."
    total = checkpoint.count(inputs)
    # The layout numbers all input blocks in a row: conv_in, then for each level its blocks and the
    # halving after them; the last level has none.
    halvings = [n for n in range(total) if checkpoint.has(f"{inputs}{n}.0.op.")]
    stride = halvings[0] if halvings else total
    channels: list[int] = []
    down_types: list[str] = []
    up_types: list[str] = []
    for level in range(len(halvings) + 1):
        first_block = f"{inputs}{1 + stride * level}."
        channels.append(checkpoint.size(f"{first_block}0.in_layers.2.weight", 0))
        attention = "CrossAttn" if checkpoint.has(f"{first_block}1.") else ""
        down_types.append(f"{attention}DownBlock2D")
        up_types.insert(0, f"{attention}UpBlock2D")
    attention_key = f"{UNET}middle_block.1.transformer_blocks.0.attn2.to_k.weight"
    return {
        "in_channels": checkpoint.size(f"{inputs}0.0.weight", 1),
        "out_channels": checkpoint.size(f"{UNET}out.2.weight", 0),
        "block_out_channels": tuple(channels),
        "layers_per_block": stride - 1,
        "down_block_types": tuple(down_types),
        "up_block_types": tuple(up_types),
        "cross_attention_dim": checkpoint.size(attention_key, 1),
        "attention_head_dim": heads,  # diffusers' name for the number of heads
        "norm_num_groups": GROUPS,
    }


def vae_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """Arguments of diffusers' AutoencoderKL, as the weights' shapes give them."""
    levels = checkpoint.count(f"{VAE}encoder.down.")
    first_convs = [f"{VAE}encoder.down.{level}.block.0.conv1.weight" for level in range(levels)]
    return {
        "in_channels": checkpoint.size(f"{VAE}encoder.conv_in.weight", 1),
        "out_channels": checkpoint.size(f"{VAE}decoder.conv_out.weight", 0),
        "block_out_channels": tuple(checkpoint.size(name, 0) for name in first_convs),
        "layers_per_block": checkpoint.count(f"{VAE}encoder.down.0.block."),
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "latent_channels": checkpoint.size(f"{VAE}post_quant_conv.weight", 1),
        "norm_num_groups": GROUPS,
    }


def unet_name(config: Mapping[str, Any]) -> Callable[[str], str]:
    """A weight's name in the layout, by its name in diffusers' UNet2DConditionModel."""
    stride = config["layers_per_block"] + 1
    # An upsampler comes after the last block of a level, and after its attention if it has one.
    upsampler = [2 if kind == "CrossAttnUpBlock2D" else 1 for kind in config["up_block_types"]]

    def layout_name(name: str) -> str:
        match name.split("."):
            case ["down_blocks", level, "downsamplers", _, "conv", kind]:
                return f"{UNET}input_blocks.{(int(level) + 1) * stride}.0.op.{kind}"
            case ["down_blocks", level, layer, number, *inner]:
                block = 1 + int(level) * stride + int(number)
                return f"{UNET}input_blocks.{block}.{_layer(layer, inner)}"
            case ["up_blocks", level, "upsamplers", _, "conv", kind]:
                block = (int(level) + 1) * stride - 1
                return f"{UNET}output_blocks.{block}.{upsampler[int(level)]}.conv.{kind}"
            case ["up_blocks", level, layer, number, *inner]:
                block = int(level) * stride + int(number)
                return f"{UNET}output_blocks.{block}.{_layer(layer, inner)}"
            case ["mid_block", "attentions", _, *inner]:
                return f"{UNET}middle_block.1.{'.'.join(inner)}"
            case ["mid_block", _, number, part, kind]:
                return f"{UNET}middle_block.{2 * int(number)}.{RESNET[part]}.{kind}"
        end, _, kind = name.rpartition(".")
        return f"{UNET}{UNET_ENDS[end]}.{kind}"

    return layout_name


def vae_name(config: Mapping[str, Any]) -> Callable[[str], str]:
    """A weight's name in the layout, by its name in diffusers' AutoencoderKL."""
    last = len(config["block_out_channels"]) - 1

    def layout_name(name: str) -> str:
        match name.replace("conv_shortcut", "nin_shortcut").split("."):
            case [side, "mid_block", "attentions", _, *part, kind]:
                return f"{VAE}{side}.mid.attn_1.{ATTENTION['.'.join(part)]}.{kind}"
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

    return layout_name


def _layer(layer: str, inner: list[str]) -> str:
    if layer == "attentions":
        return f"1.{'.'.join(inner)}"
    part, kind = inner
    return f"0.{RESNET[part]}.{kind}"


def _sampler_or_block(layer: str, number: str, part: list[str]) -> str:
    outer = f"block.{number}" if layer == "resnets" else layer.removesuffix("rs")
    return ".".join([outer, *part])


def _original_shape(name: str, parameter: Tensor) -> tuple[int, ...]:
    """The shape in the layout of a model's weight."""
    shape = tuple(parameter.shape)
    # The autoencoder's attention is of 1x1 convolutions there, and linear in diffusers.
    return (*shape, 1, 1) if ".attn_1." in name and len(shape) == 2 else shape


class _Inert:
    """Stand-in for any class or function that a checkpoint names."""

    def __new__(cls, *args: Any, **kwargs: Any) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


def _inert(path: Path) -> list[Any]:
    """Stand-ins for what lies beside the weights: callbacks, settings, states of optimisers."""
    # Lightning pickles its own classes into checkpoints. None of them is imported, and a stand-in
    # among the weights is refused, as it is no tensor.
    try:
        with torch.serialization.safe_globals(NUMPY_SCALARS):
            unknown = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except (ValueError, RuntimeError, zipfile.BadZipFile, pickle.UnpicklingError):
        return []  # not a checkpoint: reading it raises the error
    return [(_Inert, name) for name in unknown]
