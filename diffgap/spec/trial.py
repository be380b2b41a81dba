"""A trial: one experiment, fully resolved; what decides it, and nothing else."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import Field, field_validator, model_validator

from diffgap.spec.blocks import (
    BST,
    CDM,
    CloseOptions,
    DenoiserOptions,
    DiffusionBridgeOptions,
    DiffusionLinkOptions,
    Generation,
    Loss,
    MeanShiftOptions,
    Model,
    Score,
    ScoreKind,
    Train,
)

Task = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*-[a-z][a-z0-9_]*$")]
Split = Literal["test", "val"]
Method = Literal[
    "none",
    "center",
    "mean_shift",
    "close",
    "deterministic",
    "diffusion_bridge",
    "diffusion_link",
    "diffgap",
]

CELLS: dict[Method, tuple[bool, bool]] = {"none": (False, False), "deterministic": (False, True)}
"""Methods that are cells of the ablation: whether CDM and BST are on."""

UNTRAINED: tuple[Method, ...] = ("none", "center", "mean_shift")
"""Methods without a network."""

OPTIONS = ("mean_shift", "close", "diffusion_bridge", "diffusion_link")
"""Blocks of the methods that have settings of their own; each has its method's name."""

SAMPLED: tuple[Method, ...] = ("diffusion_bridge", "diffusion_link")
"""Methods that carry embeddings over by sampling alone."""

SCORE_FIELDS: dict[ScoreKind, set[str]] = {
    "cosine": set(),
    "bridge": {"fusion", "draws"},
    "sample": {
        "fusion",
        "samples",
        "sampler",
        "sample_steps",
        "start",
        "start_t",
        "guidance",
        "draws",
    },
    "rerank": {"fusion", "draws", "top_k", "rerank_weight", "levels"},
}
"""What each kind of score reads."""


class TrialSpec(Model):
    """The `trial:` block."""

    method: Method = "diffgap"
    """What bridges the gap; `none` and `deterministic` are DiffGAP without CDM."""
    cdm: CDM = CDM()
    bst: BST = BST()
    denoiser: DenoiserOptions = DenoiserOptions()
    loss: Loss = Loss()
    train: Train = Train()
    score: Score = Score()
    generation: Generation = Generation()
    mean_shift: MeanShiftOptions = MeanShiftOptions()
    close: CloseOptions = CloseOptions()
    diffusion_bridge: DiffusionBridgeOptions = DiffusionBridgeOptions()
    diffusion_link: DiffusionLinkOptions = DiffusionLinkOptions()


GENERATOR_FIELD = "generator"
"""The field that makes a trial one of generation; without it the rest of its block is idle."""

TUNABLE = (
    "train.lr",
    "train.weight_decay",
    "bst.fraction",
    *(f"loss.{name}" for name in Loss.model_fields),
    *(f"cdm.t_sampler.{name}" for name in ("power", "mean", "std")),
    *(f"cdm.weight.{name}" for name in ("gamma", "bias")),
)
"""Fields that may change while a trial trains."""


class Change(Model):
    """New values of a trial's fields, from a step on."""

    step: Annotated[int, Field(ge=1)]
    values: dict[str, Any]
    """By dotted path, of `TUNABLE` fields."""


class Trial(TrialSpec):
    """One experiment, fully resolved: with its store's fingerprint it decides the signature.

    `method`, `cdm.enabled` and `bst.enabled` always agree: a cell of the ablation that is a method
    of its own has that method's name, and methods other than DiffGAP have neither CDM nor BST.
    What its method and score have no use for stands at its default: it makes no other experiment.
    """

    task: Task
    split: Split = "test"
    """The split that the trained bridge is evaluated on."""
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    changes: tuple[Change, ...] = ()
    """What population-based training has changed on the way, in the order of the steps."""

    @field_validator("changes", mode="before")
    @classmethod
    def _from_list(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    def at(self, step: int) -> Trial:
        """The trial with the values that its fields have from a step on."""
        values = {}
        for change in self.changes:
            values.update(change.values if change.step <= step else {})
        return Trial.model_validate(with_values(self.model_dump(), values))

    @model_validator(mode="after")
    def _normalise(self) -> Self:
        self._name_the_method()
        self.__dict__.update(score=_with(self.score, "kind", self.effective_score))
        for path in self.inactive_fields():
            block, _, field = path.partition(".")
            default = getattr(DEFAULTS, block)
            if field:
                default = _with(getattr(self, block), field, getattr(default, field))
            self.__dict__[block] = default
        return self

    def _name_the_method(self) -> None:
        enabled = (self.cdm.enabled, self.bst.enabled)
        method = self.method
        if self.generates and self.generation.condition != "bridged":
            method = "none"  # no bridge has a part in it
        if method == "diffgap":
            method = next(
                (name for name, ablation_cell in CELLS.items() if ablation_cell == enabled), method
            )
        else:
            enabled = CELLS.get(method, (False, False))
        cdm, bst = _with(self.cdm, "enabled", enabled[0]), _with(self.bst, "enabled", enabled[1])
        self.__dict__.update(method=method, cdm=cdm, bst=bst)

    def inactive_fields(self) -> list[str]:
        """Blocks and fields that its method and score have no use for."""
        own_cdm = [f"cdm.{name}" for name in CDM.model_fields if name != "enabled"]
        own_bst = [f"bst.{name}" for name in BST.model_fields if name != "enabled"]
        paths = [block for block in OPTIONS if block != self.method]
        if not self.generates:
            paths += [
                f"generation.{name}" for name in Generation.model_fields if name != GENERATOR_FIELD
            ]
        if not self.trains:
            return [*paths, *own_cdm, *own_bst, "denoiser", "loss", "train", "score"]
        if self.method not in ("deterministic", "diffgap"):
            paths += [*own_cdm, *own_bst, "loss"]
        if self.method == "diffusion_link":
            paths.remove("cdm.schedule")
            paths.append("denoiser.blocks")
        if self.method == "deterministic":
            paths += own_cdm
        if self.method == "diffgap" and not self.bst.enabled:
            paths += own_bst
        idle = set(Score.model_fields) - {"kind"} - SCORE_FIELDS[self.score.kind]
        return paths + sorted(f"score.{name}" for name in idle)

    @property
    def ablation_cell(self) -> str | None:
        """Its place in the CDM x BST ablation: frozen, bst, cdm or cdm+bst; None for siblings."""
        if self.method not in ("none", "deterministic", "diffgap"):
            return None
        parts = [n for n, on in (("cdm", self.cdm.enabled), ("bst", self.bst.enabled)) if on]
        return "+".join(parts) or "frozen"

    @property
    def trains(self) -> bool:
        """Whether there is a network to train."""
        return self.method not in UNTRAINED

    @property
    def generates(self) -> bool:
        """Whether it makes sound, and is measured by that."""
        return self.generation.generator != "none"

    @property
    def effective_score(self) -> ScoreKind:
        """The score that its method allows, at most `score.kind`; in generation, the way in which
        embeddings are carried over: the mean or a sample."""
        if not self.trains:
            return "cosine"
        if self.generates and self.score.kind in ("cosine", "rerank"):
            return "sample" if self.method in SAMPLED else "bridge"
        if self.method == "diffgap" or self.score.kind == "cosine":
            return self.score.kind
        return "sample" if self.method in SAMPLED else "bridge"


DEFAULTS = TrialSpec()

Block = TypeVar("Block", bound=Model)


def _with(block: Block, field: str, value: Any) -> Block:
    """A block with one of its fields replaced: itself, where that changes nothing."""
    if getattr(block, field) == value:
        return block
    return block.model_copy(update={field: value})


def with_values(tree: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """A copy of a nested mapping with the fields at some dotted paths replaced."""
    copy = dict(tree)
    for path, value in values.items():
        head, _, rest = path.partition(".")
        copy[head] = with_values(copy.get(head, {}), {rest: value}) if rest else value
    return copy
