"""Frozen models by name: NAME or NAME=WEIGHTS, loaded in the process that needs one."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Generic, Self, TypeVar

from diffgap.errors import UserError, nearest

Model = TypeVar("Model", covariant=True)

BUNDLED = "soundscape"  # the one model of each family whose weights ship with this package
UNKNOWN_HASH = "unknown"  # of imported embeddings: nobody knows which weights made them


@dataclass(frozen=True)
class Choice(Generic[Model]):
    """A model of one family; a subclass names the family's models and options.

    Raises:
        UserError: where the family has no such model.
    """

    # A choice travels to workers instead of a model: pickled networks are large, and a worker
    # may lack the packages that a model needs.
    name: str
    weights: str | None = None  # a path, hub id or published name; None for the model's default

    models: ClassVar[Mapping[str, str]]
    """By name, ``module:Class``; the class has ``load(weights, device)``, or ``load(device)`` if
    its weights are bundled."""
    option: ClassVar[str]
    weights_option: ClassVar[str]

    def __post_init__(self) -> None:
        if self.name not in self.models:
            family, hint = self.option.removeprefix("--"), nearest(self.name, self.models)
            raise UserError(f"{self.option}: unknown {family} {self.name!r}; {hint}")

    @property
    def is_bundled(self) -> bool:
        return self.name == BUNDLED

    @classmethod
    def parse(cls, text: str) -> Self:
        """From ``NAME`` or ``NAME=WEIGHTS``, such as ``panns=Cnn14_16k_mAP=0.438.pth``."""
        name, _, weights = text.partition("=")
        return cls(name, weights or None)

    def load(self, device: str = "cpu") -> Model:
        """The model with its weights, on a torch device.

        Raises:
            UserError: where weights are missing, unreadable or another model's, or a package that
                the model needs is not installed.
        """
        if self.is_bundled and self.weights is not None:
            raise UserError(
                f"{self.weights_option}: {self.name} comes with its own weights; leave them out"
            )
        model_class = pkgutil.resolve_name(self.models[self.name])
        return model_class.load(*[device] if self.is_bundled else [self.weights, device])
