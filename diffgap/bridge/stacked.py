"""K bridges as one module, whose layers multiply K batches by K weights at once.

The weights stay the bridges' own parameters, with gradients of their own, so that each can have its
own optimiser settings. The K parameters of a layer become the rows of one tensor, so that no step
has to stack them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffgap.bridge.base import Bridge
from diffgap.bridge.denoiser import Denoiser, DenoiserInput
from diffgap.bridge.objective import Batch, Losses

Fields = TypeVar("Fields", DenoiserInput, Losses)


class StackedBridges(nn.Module):
    """K bridges of any methods, whose networks have one shape, trained as one.

    Their parameters are moved into memory that they share by layers. Whoever moves them again (as
    `nn.Module.to` another device does) must stack them again.
    """

    def __init__(self, bridges: Sequence[Bridge]) -> None:
        super().__init__()
        self.bridges = nn.ModuleList(bridges)
        # In a tuple, for a Module attribute would register the same parameters a second time.
        self._network = (stack([bridge.denoiser for bridge in bridges]),)

    def forward(self, *batches: Batch) -> Losses:
        """The (K,) losses of the bridges on their batches, which have B examples each."""
        bridges: list[Bridge] = [*self.bridges]
        inputs = [b.denoiser_input(batch) for b, batch in zip(bridges, batches, strict=True)]
        outputs = self._network[0](*_stacked_fields(DenoiserInput, inputs))
        rows = zip(bridges, batches, inputs, outputs, strict=True)
        losses = [bridge.losses(batch, entry, output) for bridge, batch, entry, output in rows]
        return _stacked_fields(Losses, losses)


def _stacked_fields(tuple_type: type[Fields], items: Sequence[Fields]) -> Fields:
    """K named tuples of tensors as one, whose tensors have a leading axis of K."""
    return tuple_type(*map(torch.stack, zip(*items, strict=True)))


def stack(denoisers: Sequence[Denoiser]) -> Denoiser:
    """The denoisers as one, of (K, B, D) rows and (K, B) noise levels and directions.

    Row k of its output is the output of denoiser k for row k of its input. Gradients flow into the
    denoisers' own parameters, which are moved: see `StackedBridges`.
    """
    first = denoisers[0]
    with torch.device("meta"):  # the structure alone: its weights are replaced below
        network = Denoiser(first.output.out_features, first.width, len(first.blocks))
    network.frequencies = first.frequencies
    for name, layer in first.named_modules():
        stacked_type = STACKED.get(type(layer))
        if stacked_type and list(layer.parameters()):
            layers = [denoiser.get_submodule(name) for denoiser in denoisers]
            network.set_submodule(name, stacked_type(layers))
    return network


class StackedParameter:
    """The K parameters of one name as the rows of one tensor, (K, ...)."""

    def __init__(self, layers: Sequence[nn.Module], name: str) -> None:
        self.parameters: list[nn.Parameter] = [getattr(layer, name) for layer in layers]
        self.rows = torch.stack([parameter.detach() for parameter in self.parameters])
        # The parameter objects stay, and with them their places in optimisers and checkpoints.
        for parameter, row in zip(self.parameters, self.rows, strict=True):
            parameter.data = row

    def __call__(self) -> Tensor:
        """The tensor of all of them, (K, ...), differentiable in each."""
        stacked: Tensor = _JoinRows.apply(self.rows, *self.parameters)
        return stacked


class _JoinRows(torch.autograd.Function):
    """`torch.stack` of parameters that are a tensor's rows already, without a copy either way."""

    @staticmethod
    def forward(ctx: Any, joined: Tensor, *rows: Tensor) -> Tensor:
        return joined.detach()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return None, *gradients[0].unbind(0)


class StackedLinear(nn.Module):
    """K linear layers: (K, B, I) to (K, B, O)."""

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.weight = StackedParameter(layers, "weight")
        self.bias = StackedParameter(layers, "bias")

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight(), self.bias()
        # Autocast knows PyTorch's own operators, and leaves custom functions as they are.
        if torch.is_autocast_enabled(x.device.type):
            dtype = torch.get_autocast_dtype(x.device.type)
            x, weight, bias = x.to(dtype), weight.to(dtype), bias.to(dtype)
        y: Tensor = _Linear.apply(x, weight, bias)
        return y


class _Linear(torch.autograd.Function):
    """``x W^T + b`` for each of K, with weight gradients in the weights' memory layout.

    The gradients of `torch.baddbmm` are transposed, and would be copied before an optimiser step.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        if _at_once(x):
            return torch.baddbmm(bias[:, None], x, weight.mT)
        y = x.new_empty(*x.shape[:2], weight.shape[1])
        return _each(torch.addmm, y, bias, x, weight.mT)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        (gradient,) = gradients
        x, weight = ctx.saved_tensors
        into_x = _products(gradient, weight) if ctx.needs_input_grad[0] else None
        return into_x, _products(gradient.mT, x), _column_sums(gradient)


def _at_once(stack: Tensor) -> bool:
    """Whether K products are one call: on a GPU, where K kernel launches cost more."""
    return stack.is_cuda


def _each(function: Callable[..., Tensor], out: Tensor, *stacks: Tensor) -> Tensor:
    """Fills the K rows of `out` one by one, on a CPU."""
    # No slower there than a batched kernel, which sums in another order: trials come out of a
    # batch as they do alone, where training would amplify a difference in the last digit.
    for row, *parts in zip(out, *stacks, strict=True):
        function(*parts, out=row)
    return out


def _products(left: Tensor, right: Tensor) -> Tensor:
    """(K, M, N) products of (K, M, L) and (K, L, N)."""
    if _at_once(left):
        return torch.bmm(left, right)
    return _each(torch.mm, left.new_empty(*left.shape[:2], right.shape[2]), left, right)


def _column_sums(stack: Tensor) -> Tensor:
    """(K, N) sums of (K, M, N) over M."""
    if _at_once(stack):
        return stack.sum(1)
    return _each(partial(torch.sum, dim=0), stack.new_empty(stack.shape[0], stack.shape[2]), stack)


class StackedLayerNorm(nn.Module):
    """K layer norms with weights of their own, on (K, B, W)."""

    def __init__(self, layers: Sequence[nn.LayerNorm]) -> None:
        super().__init__()
        self.weight = StackedParameter(layers, "weight")
        self.bias = StackedParameter(layers, "bias")
        self.shape, self.eps = layers[0].normalized_shape, layers[0].eps

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight(), self.bias()
        if _at_once(x):
            normalised = F.layer_norm(x, self.shape, eps=self.eps)
            return torch.addcmul(bias[:, None], normalised, weight[:, None])
        rows = zip(x, weight, bias, strict=True)
        return torch.stack([F.layer_norm(x, self.shape, w, b, self.eps) for x, w, b in rows])


STACKED: dict[type[nn.Module], Any] = {nn.Linear: StackedLinear, nn.LayerNorm: StackedLayerNorm}
"""Replacements of K layers by their type; layers without parameters serve all K as they are."""
