"""CAVP's two towers in plain torch (Luo et al., Diff-Foley, NeurIPS 2023), with its names.

Video: SlowOnly ResNet-50 (Feichtenhofer et al., SlowFast, ICCV 2019): frames one by one, mixed over
time in the last two stages only. Audio: Cnn14 (Kong et al., PANNs, 2020) on log-mel spectra.
Both give four tokens a second. Modules are named as in ``cavp_epoch66.ckpt``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffgap.pretrained.cnn14 import WIDTH, Cnn14Trunk

DIMENSION = 512
MELS = 128

STAGES = ((64, 3, 1, False), (128, 4, 2, False), (256, 6, 2, True), (512, 3, 2, True))
"""Channels, blocks, spatial stride, and whether the stage looks at neighbouring frames."""
EXPANSION = 4
POOLS = ((2, 2), (2, 2), (2, 2), (2, 2), (1, 2), (1, 1))  # Cnn14's poolings of (time, mel)


class CAVP(nn.Module):
    """Both towers and the temperature they were trained with."""

    def __init__(self) -> None:
        super().__init__()
        self.video_encoder = SlowOnly()
        self.video_project_head = nn.Linear(WIDTH, DIMENSION)
        self.spec_encoder = SpectrogramTower()
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def video_tokens(self, video: Tensor) -> Tensor:
        """(B, T, 3, H, W) in [0, 1] to (B, T, 512)."""
        return self.video_project_head(self.video_encoder(video.transpose(1, 2)).transpose(1, 2))

    def audio_tokens(self, mel: Tensor) -> Tensor:
        """(B, 128, T) log-mel in [0, 1] to (B, T // 16, 512)."""
        return self.spec_encoder(mel.transpose(1, 2)[:, None])


class ConvModule(nn.Module):
    """A convolution and its normalisation, named as in mmcv."""

    def __init__(
        self, inputs: int, outputs: int, kernel: tuple[int, int, int], stride: int = 1
    ) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        # No stride over time: a token for every frame.
        self.conv = nn.Conv3d(inputs, outputs, kernel, (1, stride, stride), padding, bias=False)
        self.bn = nn.BatchNorm3d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


class Bottleneck(nn.Module):
    """ResNet's block of three convolutions; the first may look one frame to either side."""

    def __init__(self, inputs: int, width: int, stride: int, temporal: bool, first: bool) -> None:
        super().__init__()
        self.conv1 = ConvModule(inputs, width, (3 if temporal else 1, 1, 1))
        self.conv2 = ConvModule(width, width, (1, 3, 3), stride)
        self.conv3 = ConvModule(width, EXPANSION * width, (1, 1, 1))
        self.downsample = (
            ConvModule(inputs, EXPANSION * width, (1, 1, 1), stride) if first else None
        )

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.conv2(F.relu(self.conv1(x))))
        return F.relu(self.conv3(h) + (x if self.downsample is None else self.downsample(x)))


class SlowOnly(nn.Module):
    """(B, 3, T, H, W) to (B, 2048, T)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = ConvModule(3, 64, (1, 7, 7), 2)
        inputs = 64
        for number, (width, blocks, stride, temporal) in enumerate(STAGES, 1):
            stage = []
            for block in range(blocks):
                step = stride if block == 0 else 1
                stage.append(Bottleneck(inputs, width, step, temporal, first=block == 0))
                inputs = EXPANSION * width
            # An attribute, not a list: the checkpoint calls them layer1 to layer4.
            setattr(self, f"layer{number}", nn.Sequential(*stage))

    def forward(self, video: Tensor) -> Tensor:
        h = F.max_pool3d(F.relu(self.conv1(video)), (1, 3, 3), (1, 2, 2), (0, 1, 1))
        for number in range(1, len(STAGES) + 1):
            h = getattr(self, f"layer{number}")(h)
        return h.mean((-2, -1))


class SpectrogramTower(Cnn14Trunk):
    """(B, 1, T, 128) to (B, T // 16, 512)."""

    def __init__(self) -> None:
        super().__init__(POOLS)
        self.bn = nn.BatchNorm2d(MELS)
        self.fc1 = nn.Linear(WIDTH, WIDTH)
        self.final_project = nn.Linear(WIDTH, DIMENSION)

    def forward(self, mel: Tensor) -> Tensor:
        # BatchNorm2d normalises dimension 1, which must be the mel bins for it.
        h = self.blocks(self.bn(mel.transpose(1, 3)).transpose(1, 3))
        h = F.max_pool1d(h, 3, 1, 1) + F.avg_pool1d(h, 3, 1, 1)
        h = F.relu(self.fc1(h.transpose(1, 2)))
        return self.final_project(F.relu(self.fc1(h)))  # the same layer twice, as it was trained
