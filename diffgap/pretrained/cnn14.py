"""Trunk of Cnn14 (Kong et al., TASLP 2020), shared by PANNs' tagger and CAVP's audio tower."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

WIDTH = 2048  # channels of the last block


class ConvBlock(nn.Module):
    """Two convolutions and a pooling."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor, pool: tuple[int, int]) -> Tensor:
        h = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        return F.avg_pool2d(h, pool)


class Cnn14Trunk(nn.Module):
    """Six blocks over normalised log-mel spectra; a subclass adds normalisation and heads."""

    def __init__(self, pools: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self._pools = pools
        inputs = 1
        for number in range(1, len(pools) + 1):
            outputs = 32 * 2**number
            # Attributes, not a list: both checkpoints call them conv_block1 to conv_block6.
            setattr(self, f"conv_block{number}", ConvBlock(inputs, outputs))
            inputs = outputs

    def blocks(self, spectra: Tensor) -> Tensor:
        """(B, 1, T, mels) to (B, 2048, T'), the mean over the bands that the pools leave."""
        h = spectra
        for number, pool in enumerate(self._pools, 1):
            h = getattr(self, f"conv_block{number}")(h, pool)
        return h.mean(3)
