"""Diff-Foley with random weights: its checkpoint's layout, and what latent diffusion computes.

Names, shapes and arithmetic are written down here once more, from the description of the layout
and without the package's converter, so that the two can be held against each other.
"""

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

State = dict[str, Tensor]

LEVELS = ((32, True), (64, True), (64, False))
"""Channels of the U-Net, and whether a level has attention."""
BLOCKS, HEADS, CONTEXT = 2, 8, 24
VAE_CHANNELS = (32, 32, 64, 64)
VAE_BLOCKS = 1
LATENT, PLACES = 4, 40


def write_checkpoint(path: Path, seed: int = 0) -> None:
    """As Lightning wrote it: schedule and counters beside the weights."""
    torch.save({"epoch": 240, "loss": np.float64(0.2), "state_dict": state(seed)}, path)


def state(seed: int = 0) -> State:
    """All weights by name, and the noise schedule that is kept among them."""
    torch.manual_seed(seed)
    betas = torch.linspace(0.00085**0.5, 0.0120**0.5, 1000, dtype=torch.float64) ** 2
    found: State = {"betas": betas.float(), "alphas_cumprod": (1 - betas).cumprod(0).float()}
    _unet(found, "model.diffusion_model.")
    _vae(found, "first_stage_model.")
    _linear(found, "cond_stage_model.embedder.0", 512, CONTEXT)
    found["cond_stage_model.pos_emb.weight"] = torch.randn(PLACES, CONTEXT)
    return found


def _linear(found: State, name: str, inputs: int, outputs: int, *kernel: int, bias=True) -> None:
    scale = 1 / math.sqrt(inputs * math.prod(kernel))
    found[f"{name}.weight"] = scale * torch.randn(outputs, inputs, *kernel)
    if bias:
        found[f"{name}.bias"] = 0.1 * torch.randn(outputs)


def _norm(found: State, name: str, channels: int) -> None:
    found[f"{name}.weight"] = 1 + 0.1 * torch.randn(channels)
    found[f"{name}.bias"] = 0.1 * torch.randn(channels)


def _unet(found: State, at: str) -> None:
    width = LEVELS[0][0]
    _linear(found, f"{at}time_embed.0", width, 4 * width)
    _linear(found, f"{at}time_embed.2", 4 * width, 4 * width)
    _linear(found, f"{at}input_blocks.0.0", LATENT, width, 3, 3)
    skips, place, channels = [width], 1, width
    for level, (outputs, attention) in enumerate(LEVELS):
        for _ in range(BLOCKS):
            _unet_block(found, f"{at}input_blocks.{place}.", channels, outputs, attention)
            channels, place = outputs, place + 1
            skips.append(channels)
        if level < len(LEVELS) - 1:
            _linear(found, f"{at}input_blocks.{place}.0.op", channels, channels, 3, 3)
            place += 1
            skips.append(channels)
    _unet_block(found, f"{at}middle_block.", channels, channels, True)
    _residual(found, f"{at}middle_block.2.", channels, channels)
    place = 0
    for level, (outputs, attention) in reversed(list(enumerate(LEVELS))):
        for block in range(BLOCKS + 1):
            inputs = channels + skips.pop()
            _unet_block(found, f"{at}output_blocks.{place}.", inputs, outputs, attention)
            channels = outputs
            if level and block == BLOCKS:
                up = f"{at}output_blocks.{place}.{2 if attention else 1}.conv"
                _linear(found, up, channels, channels, 3, 3)
            place += 1
    _norm(found, f"{at}out.0", channels)
    _linear(found, f"{at}out.2", channels, LATENT, 3, 3)


def _unet_block(found: State, at: str, inputs: int, outputs: int, attention: bool) -> None:
    _residual(found, f"{at}0.", inputs, outputs)
    if attention:
        _transformer(found, f"{at}1.", outputs)


def _residual(found: State, at: str, inputs: int, outputs: int) -> None:
    _norm(found, f"{at}in_layers.0", inputs)
    _linear(found, f"{at}in_layers.2", inputs, outputs, 3, 3)
    _linear(found, f"{at}emb_layers.1", 4 * LEVELS[0][0], outputs)
    _norm(found, f"{at}out_layers.0", outputs)
    _linear(found, f"{at}out_layers.3", outputs, outputs, 3, 3)
    if inputs != outputs:
        _linear(found, f"{at}skip_connection", inputs, outputs, 1, 1)


def _transformer(found: State, at: str, width: int) -> None:
    _norm(found, f"{at}norm", width)
    _linear(found, f"{at}proj_in", width, width, 1, 1)
    inner = f"{at}transformer_blocks.0."
    for attention, seen in (("attn1", width), ("attn2", CONTEXT)):
        _linear(found, f"{inner}{attention}.to_q", width, width, bias=False)
        _linear(found, f"{inner}{attention}.to_k", seen, width, bias=False)
        _linear(found, f"{inner}{attention}.to_v", seen, width, bias=False)
        _linear(found, f"{inner}{attention}.to_out.0", width, width)
    for number in (1, 2, 3):
        _norm(found, f"{inner}norm{number}", width)
    _linear(found, f"{inner}ff.net.0.proj", width, 8 * width)
    _linear(found, f"{inner}ff.net.2", 4 * width, width)
    _linear(found, f"{at}proj_out", width, width, 1, 1)


def _vae(found: State, at: str) -> None:
    _linear(found, f"{at}encoder.conv_in", 3, VAE_CHANNELS[0], 3, 3)
    channels = VAE_CHANNELS[0]
    for level, outputs in enumerate(VAE_CHANNELS):
        for block in range(VAE_BLOCKS):
            _vae_block(found, f"{at}encoder.down.{level}.block.{block}.", channels, outputs)
            channels = outputs
        if level < len(VAE_CHANNELS) - 1:
            down = f"{at}encoder.down.{level}.downsample.conv"
            _linear(found, down, channels, channels, 3, 3)
    _vae_ends(found, f"{at}encoder.", channels, channels, 2 * LATENT)
    _linear(found, f"{at}quant_conv", 2 * LATENT, 2 * LATENT, 1, 1)
    _linear(found, f"{at}post_quant_conv", LATENT, LATENT, 1, 1)
    _linear(found, f"{at}decoder.conv_in", LATENT, channels, 3, 3)
    for level, outputs in reversed(list(enumerate(VAE_CHANNELS))):
        for block in range(VAE_BLOCKS + 1):
            _vae_block(found, f"{at}decoder.up.{level}.block.{block}.", channels, outputs)
            channels = outputs
        if level:
            _linear(found, f"{at}decoder.up.{level}.upsample.conv", channels, channels, 3, 3)
    _vae_ends(found, f"{at}decoder.", VAE_CHANNELS[-1], channels, 3)


def _vae_ends(found: State, at: str, middle: int, last: int, outputs: int) -> None:
    _vae_block(found, f"{at}mid.block_1.", middle, middle)
    _norm(found, f"{at}mid.attn_1.norm", middle)
    for part in ("q", "k", "v", "proj_out"):
        _linear(found, f"{at}mid.attn_1.{part}", middle, middle, 1, 1)
    _vae_block(found, f"{at}mid.block_2.", middle, middle)
    _norm(found, f"{at}norm_out", last)
    _linear(found, f"{at}conv_out", last, outputs, 3, 3)


def _vae_block(found: State, at: str, inputs: int, outputs: int) -> None:
    _norm(found, f"{at}norm1", inputs)
    _linear(found, f"{at}conv1", inputs, outputs, 3, 3)
    _norm(found, f"{at}norm2", outputs)
    _linear(found, f"{at}conv2", outputs, outputs, 3, 3)
    if inputs != outputs:
        _linear(found, f"{at}nin_shortcut", inputs, outputs, 1, 1)


class Reference:
    """What the weights compute, by their names in the layout and with torch alone."""

    def __init__(self, weights: State) -> None:
        self._weights = weights

    def noise(self, latents: Tensor, time: Tensor, context: Tensor) -> Tensor:
        """(B, 4, H, W) latents at (B,) times, given (B, T, CONTEXT)."""
        at = "model.diffusion_model."
        width = LEVELS[0][0]
        speeds = torch.exp(-math.log(10_000) * torch.arange(width // 2) / (width // 2))
        angles = time[:, None] * speeds
        waves = torch.cat([angles.cos(), angles.sin()], 1)
        when = self._apply(f"{at}time_embed.2", F.silu(self._apply(f"{at}time_embed.0", waves)))
        h = self._apply(f"{at}input_blocks.0.0", latents)
        skips, place = [h], 1
        while f"{at}input_blocks.{place}.0.in_layers.0.weight" in self._weights or (
            f"{at}input_blocks.{place}.0.op.weight" in self._weights
        ):
            block = f"{at}input_blocks.{place}."
            if f"{block}0.op.weight" in self._weights:
                h = self._apply(f"{block}0.op", h, stride=2)
            else:
                h = self._unet_block(block, h, when, context)
            skips.append(h)
            place += 1
        h = self._unet_block(f"{at}middle_block.", h, when, context)
        h = self._residual(f"{at}middle_block.2.", h, when)
        for place in range(len(skips)):
            block = f"{at}output_blocks.{place}."
            h = self._unet_block(block, torch.cat([h, skips.pop()], 1), when, context)
            for slot in (1, 2):
                if f"{block}{slot}.conv.weight" in self._weights:
                    h = self._apply(f"{block}{slot}.conv", F.interpolate(h, scale_factor=2))
        return self._apply(f"{at}out.2", F.silu(self._norm(f"{at}out.0", h, 1e-5)))

    def decode(self, latents: Tensor) -> Tensor:
        """(B, 4, H, W) latents, as the autoencoder made them, to (B, 3, 8 H, 8 W)."""
        at = "first_stage_model.decoder."
        h = self._apply("first_stage_model.post_quant_conv", latents)
        h = self._vae_block(f"{at}mid.block_1.", self._apply(f"{at}conv_in", h))
        h = self._vae_block(f"{at}mid.block_2.", self._vae_attention(f"{at}mid.attn_1.", h))
        for level in reversed(range(len(VAE_CHANNELS))):
            for block in range(VAE_BLOCKS + 1):
                h = self._vae_block(f"{at}up.{level}.block.{block}.", h)
            if level:
                h = self._apply(f"{at}up.{level}.upsample.conv", F.interpolate(h, scale_factor=2))
        return self._apply(f"{at}conv_out", F.silu(self._norm(f"{at}norm_out", h)))

    def _apply(self, name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight, bias = self._weights[f"{name}.weight"], self._weights.get(f"{name}.bias")
        if weight.ndim == 2:
            return F.linear(x, weight, bias)
        return F.conv2d(x, weight, bias, stride, weight.shape[-1] // 2)

    def _norm(self, name: str, x: Tensor, epsilon: float = 1e-6) -> Tensor:
        weight, bias = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        return F.group_norm(x, 32, weight, bias, epsilon)

    def _unet_block(self, at: str, h: Tensor, when: Tensor, context: Tensor) -> Tensor:
        h = self._residual(f"{at}0.", h, when)
        return (
            self._transformer(f"{at}1.", h, context) if f"{at}1.norm.weight" in self._weights else h
        )

    def _residual(self, at: str, x: Tensor, when: Tensor) -> Tensor:
        h = self._apply(f"{at}in_layers.2", F.silu(self._norm(f"{at}in_layers.0", x, 1e-5)))
        h = h + self._apply(f"{at}emb_layers.1", F.silu(when))[:, :, None, None]
        h = self._apply(f"{at}out_layers.3", F.silu(self._norm(f"{at}out_layers.0", h, 1e-5)))
        skip = f"{at}skip_connection"
        return h + (self._apply(skip, x) if f"{skip}.weight" in self._weights else x)

    def _transformer(self, at: str, x: Tensor, context: Tensor) -> Tensor:
        inner = f"{at}transformer_blocks.0."
        h = self._apply(f"{at}proj_in", self._norm(f"{at}norm", x)).flatten(2).transpose(1, 2)
        seen = self._layer_norm(f"{inner}norm1", h)
        h = h + self._attention(f"{inner}attn1.", seen, seen)
        h = h + self._attention(f"{inner}attn2.", self._layer_norm(f"{inner}norm2", h), context)
        both = self._apply(f"{inner}ff.net.0.proj", self._layer_norm(f"{inner}norm3", h))
        value, gate = both.chunk(2, -1)
        h = h + self._apply(f"{inner}ff.net.2", value * F.gelu(gate))
        return x + self._apply(f"{at}proj_out", h.transpose(1, 2).reshape(x.shape))

    def _layer_norm(self, name: str, x: Tensor) -> Tensor:
        weight, bias = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        return F.layer_norm(x, x.shape[-1:], weight, bias)

    def _attention(self, at: str, x: Tensor, context: Tensor) -> Tensor:
        query = self._apply(f"{at}to_q", x).unflatten(-1, (HEADS, -1)).transpose(1, 2)
        key = self._apply(f"{at}to_k", context).unflatten(-1, (HEADS, -1)).transpose(1, 2)
        value = self._apply(f"{at}to_v", context).unflatten(-1, (HEADS, -1)).transpose(1, 2)
        weights = (query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])).softmax(-1)
        return self._apply(f"{at}to_out.0", (weights @ value).transpose(1, 2).flatten(2))

    def _vae_block(self, at: str, x: Tensor) -> Tensor:
        h = self._apply(f"{at}conv1", F.silu(self._norm(f"{at}norm1", x)))
        h = self._apply(f"{at}conv2", F.silu(self._norm(f"{at}norm2", h)))
        skip = f"{at}nin_shortcut"
        return h + (self._apply(skip, x) if f"{skip}.weight" in self._weights else x)

    def _vae_attention(self, at: str, x: Tensor) -> Tensor:
        h = self._norm(f"{at}norm", x)
        query, key, value = (self._apply(f"{at}{part}", h).flatten(2) for part in "qkv")
        weights = (query.transpose(1, 2) @ key / math.sqrt(x.shape[1])).softmax(-1)
        seen = (value @ weights.transpose(1, 2)).reshape(x.shape)
        return x + self._apply(f"{at}proj_out", seen)
