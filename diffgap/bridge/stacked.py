"""K bridges as one: every layer of their networks multiplies K batches by K weights at once.

The weights stay the K bridges' own parameters, with gradients of their own, so that each may be
optimised in its own way. To spare a copy a step, the K parameters of a layer become the rows of one
tensor, which the layer multiplies by.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffgap.bridge.base import Bridge
from diffgap.bridge.denoiser import Denoiser, DenoiserInput
from diffgap.bridge.objective import Batch, Losses


class StackedBridges(nn.Module):
    """K bridges of any methods, whose networks have one shape, trained as one.

    The bridges' parameters are moved into memory that they share by layers; whoever moves them
    away (`nn.Module.to` another device, say) must make a pack anew.
    """

    def __init__(self, bridges: Sequence[Bridge]) -> None:
        super().__init__()
        self.bridges = nn.ModuleList(bridges)
        self._network = (stack([bridge.denoiser for bridge in bridges]),)  # no part of its own

    def forward(self, *batches: Batch) -> Losses:
        """The losses of each bridge on its batch, of B examples each: (K,) each."""
        bridges: list[Bridge] = [*self.bridges]
        given = [b.denoiser_input(batch) for b, batch in zip(bridges, batches, strict=True)]
        (network,) = self._network
        outputs = network(*DenoiserInput(*map(torch.stack, zip(*given, strict=True))))
        losses = [
            b.losses(*parts) for b, *parts in zip(bridges, batches, given, outputs, strict=True)
        ]
        return Losses(*map(torch.stack, zip(*losses, strict=True)))


def stack(denoisers: Sequence[Denoiser]) -> Denoiser:
    """The denoisers as one, of (K, B, D) rows and (K, B) noise levels and directions.

    Row k of its output is what denoiser k makes of row k, and gradients end in the denoisers' own
    parameters, which are moved: see `StackedBridges`.
    """
    first = denoisers[0]
    with torch.device("meta"):  # a frame without weights of its own
        network = Denoiser(first.output.out_features, first.width, len(first.blocks))
    network.frequencies = first.frequencies
    for name, layer in first.named_modules():
        kind = STACKED.get(type(layer))
        if kind and any(True for _ in layer.parameters()):
            network.set_submodule(name, kind([d.get_submodule(name) for d in denoisers]))
    return network


class StackedParameter:
    """The K parameters of the same name as rows of one tensor, (K, ...)."""

    def __init__(self, layers: Sequence[nn.Module], name: str) -> None:
        self.parameters: list[nn.Parameter] = [getattr(layer, name) for layer in layers]
        self.whole = torch.stack([parameter.detach() for parameter in self.parameters])
        for parameter, row in zip(self.parameters, self.whole, strict=True):
            parameter.data = row

    def __call__(self) -> Tensor:
        """All of them, (K, ...), differentiable in each."""
        whole: Tensor = _Whole.apply(self.whole, *self.parameters)
        return whole


class _Whole(torch.autograd.Function):
    """The tensor whose rows are these, without a copy either way."""

    @staticmethod
    def forward(ctx: Any, whole: Tensor, *rows: Tensor) -> Tensor:
        return whole.detach()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return None, *gradients[0].unbind(0)


class StackedLinear(nn.Module):
    """K linear layers: (K, B, I) to (K, B, O)."""

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.weight, self.bias = (
            StackedParameter(layers, "weight"),
            StackedParameter(layers, "bias"),
        )

    def forward(self, x: Tensor) -> Tensor:
        parts = x, self.weight(), self.bias()
        if torch.is_autocast_enabled(x.device.type):
            dtype = torch.get_autocast_dtype(x.device.type)
            parts = tuple(part.to(dtype) for part in parts)  # type: ignore[assignment]
        y: Tensor = _Linear.apply(*parts)
        return y


class _Linear(torch.autograd.Function):
    """``x W^T + b`` for each of K, whose weight gradients lie in memory as weights do.

    Those of `torch.baddbmm` come transposed, and are copied before an optimiser gets them.
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
    """Whether K products are one call: on a GPU, where K calls are slower."""
    return stack.is_cuda


def _each(function: Callable[..., Tensor], out: Tensor, *stacks: Tensor) -> Tensor:
    """Fills the K rows of `out` one by one: on a CPU as fast as at once, and the same as alone.

    Batched kernels sum in another order, and a training never forgets a last digit.
    """
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
        self.weight, self.bias = (
            StackedParameter(layers, "weight"),
            StackedParameter(layers, "bias"),
        )
        self.shape, self.eps = layers[0].normalized_shape, layers[0].eps

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight(), self.bias()
        if _at_once(x):
            normal = F.layer_norm(x, self.shape, eps=self.eps)
            return torch.addcmul(bias[:, None], normal, weight[:, None])
        rows = zip(x, weight, bias, strict=True)
        return torch.stack([F.layer_norm(x, self.shape, w, b, self.eps) for x, w, b in rows])


STACKED: dict[type[nn.Module], Any] = {nn.Linear: StackedLinear, nn.LayerNorm: StackedLayerNorm}
"""What stands for K layers of a kind; layers without parameters stand for themselves."""
