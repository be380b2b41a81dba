"""Published figures, each with its source; never ours, never a guess."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from diffgap.errors import UserError

FILE = Path(__file__).parent / "references.yaml"

DATASETS = {"audiocaps": "AudioCaps", "vggsound": "VGGSound"}
"""Names of corpora as papers write them."""


class Reference(BaseModel):
    """One published row."""

    model_config = ConfigDict(extra="forbid")

    task: str
    dataset: str
    method: str
    metrics: dict[str, float]
    extractor: dict[str, str] = {}
    """The feature extractor of each generation metric."""
    source: str
    seen: str
    """``table`` where the authors' own was read, ``quoted`` where another paper quotes it, and
    ``summary`` where only a summary of the paper was."""
    note: str | None = None

    @property
    def footnote(self) -> str:
        """Its source, how that was seen, and what sets its figures apart from others'."""
        # Figures of generation by another extractor are of another scale: it belongs to the source.
        extractors = [f"{metric} by {name}" for metric, name in self.extractor.items()]
        parts = [f"{self.source} ({self.seen})", ", ".join(extractors), self.note or ""]
        return "; ".join(filter(None, parts))


def read_references(path: Path = FILE) -> list[Reference]:
    """All rows of a file of references; UserError where it is not one."""
    try:
        return TypeAdapter(list[Reference]).validate_python(yaml.safe_load(path.read_text()))
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from None
    except ValidationError as error:
        problems = []
        for problem in error.errors(include_url=False):
            entry, *fields = problem["loc"]
            field = ".".join(map(str, fields))
            problems.append(f"{path}: entry {entry}, {field}: {problem['msg']}")
        raise UserError(*problems) from None


def references_for(references: Iterable[Reference], task: str, dataset: str) -> list[Reference]:
    """Published rows of one task, such as ``text-audio-retrieval``, on one corpus."""
    return [r for r in references if (r.task, r.dataset) == (task, dataset)]


def retrieval_references(corpus: str, task: str) -> list[Reference]:
    """Published retrieval on a corpus; none for corpora that nobody published on."""
    return references_for(read_references(), f"{task}-retrieval", DATASETS.get(corpus, ""))
