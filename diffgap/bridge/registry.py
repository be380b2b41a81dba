"""Registry of methods: DiffGAP, the cells of its ablation, and its siblings.

A method is a `Bridge` in a module of its own and an entry here, from which the rest of the package
takes all it needs. Nothing here needs torch: the class is imported when a bridge is made.
"""

from __future__ import annotations

from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Annotated, Any

from annotated_types import Ge, Le

from diffgap.bridge.config import NoiseTime, NonNegative, Positive, ScoreKind, Share, Steps


@dataclass(frozen=True)
class MethodInfo:
    """What the rest of the package needs to know of a method."""

    name: str
    """In specs, and in a bridge's config.json."""
    title: str
    """In tables."""
    bridge: str = "diffgap.bridge.model:DiffGAP"
    """The class, as ``module:Class``."""
    score: ScoreKind | None = "bridge"
    """The one kind of score it has beside the cosine; None where it has all of them. `cosine`
    is a method without a network."""
    reads: tuple[str, ...] = ("denoiser", "train", "score")
    """Blocks of a trial that it reads, or single fields of them as ``cdm.schedule``; the others
    stand at their defaults and make no other experiment."""
    is_solved: bool = False
    """Whether it is solved on the training pairs, in closed form, and has no network to train."""
    options: type | None = None
    """A dataclass of the method's own settings: a trial's block of the method's name."""
    carries_to_target: bool = False
    """Whether it carries x over into the target's own space, where a generator can use it."""
    cell: tuple[bool, bool] | None = None
    """Whether CDM and BST are on, of a method that is one cell of the ablation."""
    blocks: int | None = None
    """Residual blocks of its network, where `denoiser.blocks` does not decide."""

    packs: bool = True
    """Whether its trials can train in one batch with others: its network is a `Denoiser`."""

    @property
    def trained(self) -> bool:
        return self.carries and not self.is_solved

    @property
    def carries(self) -> bool:
        """Whether it carries embeddings over to the other side."""
        return self.score != "cosine"


@dataclass(frozen=True)
class MeanShiftOptions:
    scale: NonNegative = 1.0
    """How far x is moved along the difference of the modality means; 1 is all the way."""


@dataclass(frozen=True)
class CCAOptions:
    shrinkage: Share = 0.1
    """Share of the identity in the covariances."""


@dataclass(frozen=True)
class RidgeOptions:
    penalty: Positive = 0.1
    """Weight of the squared coefficients, beside the squared error summed over the pairs."""


@dataclass(frozen=True)
class CloseOptions:
    noise: NonNegative = 0.08
    """Standard deviation of the noise on centred unit vectors while training."""


@dataclass(frozen=True)
class DiffusionBridgeOptions:
    radius: Positive = 5.0
    """Length of the embeddings that are diffused, and of every state that the network sees."""
    start_t: NoiseTime = 0.6
    """Share of the diffusion steps from which the query goes back, without added noise."""
    steps: Steps = 5
    """DDIM steps from there."""
    timesteps: Steps = 1000
    """Diffusion steps of the DDPM."""


@dataclass(frozen=True)
class DiffusionLinkOptions:
    topology_weight: NonNegative = 1.0
    """Weight of the loss that keeps the batch's similarities."""
    start_t: NoiseTime = 0.6
    """Noise time at which the query comes in."""
    steps: Steps = 5
    """DDIM steps."""


@dataclass(frozen=True)
class DiffusionRetOptions:
    negatives: Annotated[int, Ge(1), Le(1_000_000)] = 127
    """Hardest negatives of the batch that are candidates while training."""
    timesteps: Steps = 50
    """Diffusion steps, all of which a sample takes."""
    temperature: Positive = 0.01
    """Temperature of the cross-entropy of the denoised distribution."""


DIFFGAP_BLOCKS = ("bst", "denoiser", "loss", "train", "score")
METHODS: dict[str, MethodInfo] = {
    method.name: method
    for method in (
        MethodInfo("none", "frozen embeddings", score="cosine", reads=(), cell=(False, False)),
        MethodInfo("center", "center", "diffgap.bridge.siblings:Center", score="cosine", reads=()),
        MethodInfo(
            "mean_shift",
            "mean shift",
            "diffgap.bridge.siblings:MeanShift",
            score="cosine",
            reads=(),
            options=MeanShiftOptions,
        ),
        MethodInfo(
            "realign", "ReAlign", "diffgap.bridge.closed_form:ReAlign", score="cosine", reads=()
        ),
        MethodInfo(
            "procrustes",
            "Procrustes",
            "diffgap.bridge.closed_form:Procrustes",
            score="cosine",
            reads=(),
        ),
        MethodInfo(
            "ridge",
            "ridge regression",
            "diffgap.bridge.closed_form:Ridge",
            reads=("score.fusion",),
            is_solved=True,
            options=RidgeOptions,
            carries_to_target=True,
        ),
        MethodInfo(
            "cca",
            "CCA",
            "diffgap.bridge.closed_form:CCA",
            score="cosine",
            reads=(),
            options=CCAOptions,
        ),
        MethodInfo("close", "C3 (close)", "diffgap.bridge.siblings:Close", options=CloseOptions),
        MethodInfo(
            "deterministic",
            "deterministic bridge",
            reads=DIFFGAP_BLOCKS,
            carries_to_target=True,
            cell=(False, True),
        ),
        MethodInfo(
            "diffusion_bridge",
            "Diffusion-Bridge",
            "diffgap.bridge.diffusion_bridge:DiffusionBridge",
            score="sample",
            options=DiffusionBridgeOptions,
        ),
        MethodInfo(
            "diffusion_link",
            "Diffusion-Link",
            "diffgap.bridge.siblings:DiffusionLink",
            score="sample",
            reads=("cdm.schedule", "denoiser.width", "train", "score"),
            options=DiffusionLinkOptions,
            blocks=3,
        ),
        MethodInfo(
            "diffusion_ret",
            "DiffusionRet",
            "diffgap.bridge.diffusion_ret:DiffusionRet",
            score="rerank",
            reads=("train", "score.top_k", "score.rerank_weight"),
            options=DiffusionRetOptions,
            packs=False,
        ),
        MethodInfo(
            "diffgap", "DiffGAP", score=None, reads=("cdm", *DIFFGAP_BLOCKS), carries_to_target=True
        ),
    )
}


def bridge_class(method: str) -> Any:
    """The subclass of `Bridge` that implements a method; ValueError for an unknown one."""
    if method not in METHODS:
        raise ValueError(f"method: {method!r} is unknown; known are {', '.join(METHODS)}")
    return resolve_name(METHODS[method].bridge)
