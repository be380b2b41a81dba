"""A trial: one experiment, fully resolved, and no setting that does not decide its result."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar

from pydantic import Field, create_model, model_validator

from diffgap.bridge.config import CORRECTIONS, NormaliseKind, ScoreKind
from diffgap.bridge.registry import METHODS
from diffgap.spec.blocks import (
    BST,
    CDM,
    OPTION_BLOCKS,
    DenoiserOptions,
    Generation,
    Loss,
    MethodName,
    Model,
    Score,
    Train,
)

Task = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*-[a-z][a-z0-9_]*$")]
Split = Literal["test", "val"]

SAMPLING = ("samples", "sampler", "sample_steps", "start", "start_t", "guidance")
SCORE_FIELDS: dict[ScoreKind, set[str]] = {
    "cosine": set(),
    "bridge": {"fusion", "draws"},
    "sample": {"fusion", "draws", *SAMPLING},
    "rerank": {"fusion", "draws", "top_k", "rerank_weight", "levels"},
}
"""What each kind of score reads."""


class TrialBlocks(Model):
    """The `trial:` block, but for the methods' own settings."""

    method: MethodName = "diffgap"
    """What bridges the gap; `none` and `deterministic` are DiffGAP without CDM."""
    cdm: CDM = CDM()
    bst: BST = BST()
    denoiser: DenoiserOptions = DenoiserOptions()
    loss: Loss = Loss()
    train: Train = Train()
    score: Score = Score()
    generation: Generation = Generation()


if TYPE_CHECKING:

    class TrialSpec(TrialBlocks):
        """The `trial:` block: a field for each block, and one for each method's own settings."""

else:
    # A method's settings are a block of its name, so that a method is added in the registry alone.
    _options = {name: (block, block()) for name, block in OPTION_BLOCKS.items()}
    TrialSpec = create_model("TrialSpec", __base__=TrialBlocks, __module__=__name__, **_options)

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

    `method`, `cdm.enabled` and `bst.enabled` always agree: an ablation cell that is a method has
    its name, and methods other than DiffGAP have neither CDM nor BST. Fields that its method and
    score do not read are set to their defaults: they make no difference.
    """

    task: Task
    split: Split = "test"
    """The split that the trained bridge is evaluated on."""
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    changes: tuple[Change, ...] = ()
    """Changes made by population-based training on the way, in the order of their steps."""

    def at(self, step: int) -> Trial:
        """The trial with the values that its fields have from a step on."""
        values: dict[str, Any] = {}
        for change in self.changes:
            values |= change.values if change.step <= step else {}
        return Trial.model_validate(with_values(self.model_dump(), values))

    @model_validator(mode="after")
    def _normalise(self) -> Self:
        # Frozen for everybody else: `__dict__` is the one way in, and validation is not repeated.
        self._name_the_method()
        self.__dict__.update(score=_with(self.score, "kind", self.effective_score))
        for block, field, default in _defaults_of(self.inactive_fields()):
            if field:
                default = _with(getattr(self, block), field, default)
            self.__dict__[block] = default
        # Written out, so that a default that is given is no other experiment.
        for field, value in _correction_defaults(self.score.normalise).items():
            if getattr(self.score, field) is None:
                self.__dict__["score"] = _with(self.score, field, value)
        return self

    def _name_the_method(self) -> None:
        method, enabled = self.method, (self.cdm.enabled, self.bst.enabled)
        if self.generates and self.generation.condition != "bridged":
            method = "none"  # no bridge has a part in it
        if method == "diffgap":
            for info in METHODS.values():
                if info.cell == enabled:
                    method = info.name
        else:
            enabled = METHODS[method].cell or (False, False)
        cdm, bst = _with(self.cdm, "enabled", enabled[0]), _with(self.bst, "enabled", enabled[1])
        self.__dict__.update(method=method, cdm=cdm, bst=bst)

    def inactive_fields(self) -> tuple[str, ...]:
        """Blocks and fields that its method and score do not read."""
        score = self.score
        return _inactive_fields(
            self.method, self.generates, self.bst.enabled, score.kind, score.normalise
        )

    @property
    def ablation_cell(self) -> str | None:
        """Its place in the CDM x BST ablation: frozen, bst, cdm or cdm+bst; None for siblings."""
        if self.method != "diffgap" and METHODS[self.method].cell is None:
            return None
        return (("frozen", "bst"), ("cdm", "cdm+bst"))[self.cdm.enabled][self.bst.enabled]

    @property
    def trains(self) -> bool:
        """Whether there is a network to train."""
        return METHODS[self.method].trained

    @property
    def generates(self) -> bool:
        """Whether it generates sound, and is evaluated by that sound."""
        return self.generation.generator != "none"

    @property
    def effective_score(self) -> ScoreKind:
        """The score that its method allows, up to `score.kind`; in generation, bridge or sample."""
        only, kind = METHODS[self.method].score, self.score.kind
        if only == "cosine":
            return "cosine"
        if self.generates and kind in ("cosine", "rerank"):
            return only or "bridge"  # these two rank pairs, and carry nothing over
        return kind if only is None or kind == "cosine" else only


@cache  # the trials of a large sweep have few answers
def _inactive_fields(
    method: str, generates: bool, bst_enabled: bool, score: ScoreKind, normalise: NormaliseKind
) -> tuple[str, ...]:
    paths = [block for block in OPTION_BLOCKS if block != method]
    correction: set[str] = set()
    if not generates:
        fields = set(Generation.model_fields) - {"generator"}
        paths += map("generation.{}".format, sorted(fields))
        correction = {"normalise", *_correction_defaults(normalise)}
    reads = METHODS[method].reads
    if "score" not in reads:
        reads = (*reads, *map("score.{}".format, sorted(correction)))
    for block in ("cdm", "bst", "denoiser", "loss", "train", "score"):
        # Without BST there is no batch to split.
        paths += _unread(block, () if block == "bst" and not bst_enabled else reads)
    if METHODS[method].carries:
        fields = set(Score.model_fields) - {"kind"} - SCORE_FIELDS[score] - correction
        paths += map("score.{}".format, sorted(fields))
    return tuple(paths)


@cache
def _defaults_of(paths: tuple[str, ...]) -> tuple[tuple[str, str, Any], ...]:
    """Block, field and default of each path; the field is empty for a whole block."""
    defaults = []
    for path in paths:
        block, _, field = path.partition(".")
        default = getattr(DEFAULTS, block)
        defaults.append((block, field, getattr(default, field) if field else default))
    return tuple(defaults)


@cache  # asked twice for every trial of a sweep
def _correction_defaults(normalise: NormaliseKind) -> dict[str, float | int]:
    """The fields of the score that a correction of hubness reads, at its defaults."""
    defaults = {}
    for name, value in CORRECTIONS[normalise]._asdict().items():
        if value is not None:
            defaults[f"normalise_{name}"] = value
    return defaults


def _unread(block: str, reads: tuple[str, ...]) -> Iterator[str]:
    """A block that a method does not read, or the fields of it that it does not read."""
    if block in reads:
        return
    fields = type(getattr(DEFAULTS, block)).model_fields
    if "enabled" not in fields and not any(f"{block}.{name}" in reads for name in fields):
        yield block
        return
    for name in fields:
        # The method decides `enabled`: see `_name_the_method`.
        if name != "enabled" and f"{block}.{name}" not in reads:
            yield f"{block}.{name}"


DEFAULTS = TrialSpec()

Block = TypeVar("Block", bound=Model)


def _with(block: Block, field: str, value: Any) -> Block:
    """A block with one of its fields replaced: itself, where that changes nothing."""
    changes = getattr(block, field) != value
    return block.model_copy(update={field: value}) if changes else block


def with_values(tree: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """A copy of a nested mapping with the fields at some dotted paths replaced."""
    copy = dict(tree)
    for path, value in values.items():
        head, _, rest = path.partition(".")
        copy[head] = with_values(copy.get(head, {}), {rest: value}) if rest else value
    return copy
