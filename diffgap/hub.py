"""Folder of a shared bridge: files that are never seen in part, and a model card.

A model card is a README.md that opens with YAML for a hub. Everything in it comes from the
bridge's config and from `facts`, all of them optional: what a trial writes into config.json beside
the bridge (trial, signature, store, encoder, git_commit, packages, hardware), and

    name       of the model; default the folder's
    license    of the weights, as a hub writes it; default apache-2.0
    metrics    of the trial, by names such as test/text_to_audio/R1
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from diffgap.bridge.config import BridgeConfig
from diffgap.bridge.registry import METHODS
from diffgap.io.atomic import sync
from diffgap.io.json_text import json_text
from diffgap.io.places import naming
from diffgap.io.printable import markdown, one_line

CARD = "README.md"
LIBRARY = "library_name: diffgap"  # a line by which our own cards are recognised
LICENSE = "apache-2.0"
RETRIEVAL = {"R1": "R@1", "R5": "R@5", "R10": "R@10", "MedR": "MedR", "mAP10": "mAP@10"}
"""Titles of the metrics in a card's table, in its order."""

CITATION = """\
    @misc{diffgap,
      title = {DiffGAP},
      note = {arXiv:2503.12131},
      url = {https://arxiv.org/abs/2503.12131}
    }"""


class RetrievalRow(NamedTuple):
    """Retrieval of one direction on one split."""

    split: str
    direction: str
    values: dict[str, float]


def write_whole(files: Mapping[Path, bytes]) -> None:
    """Writes files so that none is ever seen in part; the last one is put in place last.

    Where they replace another bridge's files, the last one is absent meanwhile.
    """
    temporary = {path: path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}") for path in files}
    try:
        for path, content in files.items():
            with naming(path, temporary[path]):
                temporary[path].write_bytes(content)
                sync(temporary[path])
        list(files)[-1].unlink(missing_ok=True)  # readers take the folder for whole if it is there
        for path, written in temporary.items():
            os.replace(written, path)
    finally:
        for written in temporary.values():
            written.unlink(missing_ok=True)


def foreign_card(folder: Path) -> bool:
    """Whether the folder has a README.md that is no model card of ours."""
    path = folder / CARD
    return path.exists() and LIBRARY not in path.read_text(errors="replace").splitlines()


def retrieval_rows(config: BridgeConfig, metrics: Mapping[str, float]) -> list[RetrievalRow]:
    """Retrieval by split and direction, x->a first, out of a trial's metrics."""
    x, a = config.modalities
    rows = []
    for split in sorted({name.split("/")[0] for name in metrics}):
        for source, target in ((x, a), (a, x)):
            prefix = f"{split}/{source}_to_{target}/"
            values = {m: metrics[prefix + m] for m in RETRIEVAL if prefix + m in metrics}
            if values:
                rows.append(RetrievalRow(split, f"{source}->{target}", values))
    return rows


def model_card(
    config: BridgeConfig, directions: tuple[int, ...], name: str, facts: Mapping[str, Any]
) -> str:
    """The text of a model card; see the module's docstring for the facts."""
    rows = retrieval_rows(config, facts.get("metrics", {}))
    sections = {
        f"# {markdown(name)}": _summary(config, directions),
        "## Use": _use(config, directions),
        "## What it needs": _requirements(config, facts),
        "## Retrieval": _retrieval(rows, facts),
        "## Training": _training(config, facts),
        "## Licence and citation": _licence(facts),
    }
    body = "\n\n".join(f"{title}\n\n{text}" for title, text in sections.items())
    return f"{_front_matter(config, name, rows, facts)}\n{body}\n"


def _front_matter(
    config: BridgeConfig, name: str, rows: list[RetrievalRow], facts: Mapping[str, Any]
) -> str:
    """YAML whose strings are JSON, which YAML reads too."""
    x, a = config.modalities
    tags = list(dict.fromkeys(("diffgap", config.method, "modality-gap", "retrieval", x, a)))
    lines = [f"license: {json_text(facts.get('license', LICENSE))}", LIBRARY]
    lines += ["pipeline_tag: feature-extraction", f"tags: {json_text(tags)}"]
    corpus = _corpus(facts)
    if corpus:
        lines.append(f"datasets: {json_text([corpus])}")
    if rows:
        lines.append(f"metrics: {json_text(['recall', 'mean_average_precision'])}")
        results = [_result(row, corpus or "unknown") for row in rows]
        lines.append(f"model-index: {json_text([{'name': name, 'results': results}])}")
    return "\n".join(["---", *lines, "---"])


def _result(row: RetrievalRow, corpus: str) -> dict[str, Any]:
    """An entry of a hub's model-index."""
    return {
        "task": {"type": "retrieval", "name": f"{row.direction} retrieval"},
        "dataset": {"type": corpus, "name": corpus, "split": row.split},
        "metrics": [
            {"type": metric, "name": f"{row.direction} {RETRIEVAL[metric]}", "value": value}
            for metric, value in row.values.items()
        ],
    }


def _summary(config: BridgeConfig, directions: tuple[int, ...]) -> str:
    x, a = config.modalities
    network = "it has no network"
    if directions:
        arrows = [f"{config.modalities[d]}->{config.modalities[1 - d]}" for d in directions]
        network = f"it has learnt {' and '.join(arrows)}"
    elif METHODS[config.method].trained:
        network = "it has learnt to rank, and carries nothing over"
    cell = ""
    if config.method in ("diffgap", "deterministic", "none"):
        cdm, bst = ("with" if on else "without" for on in (config.cdm, config.bst))
        cell = f", {cdm} CDM, {bst} BST"
    return (
        f"A bridge over the modality gap between frozen {x} and {a} embeddings of "
        f"{config.dimension} dimensions. Method: `{config.method}`{cell}; {network}. It scores "
        f"pairs by `{config.score.kind}` unless asked otherwise."
    )


def _use(config: BridgeConfig, directions: tuple[int, ...]) -> str:
    x, a = config.modalities
    carry = []
    if directions:
        source, target = config.modalities[directions[0]], config.modalities[1 - directions[0]]
        carry = [f'{target}_like = bridge.bridge({source}, source="{source}")  # (N, D)']
    code = [
        "import torch",
        "from torch.nn import functional as F",
        "",
        "from diffgap.apply import rank",
        "from diffgap.bridge.base import Bridge",
        "",
        'bridge = Bridge.from_pretrained(".")  # this folder',
        f"# Put your encoder's embeddings here, (N, {config.dimension}) at length 1:",
        f"{x} = F.normalize(torch.randn(2, {config.dimension}), dim=-1)",
        f"{a} = F.normalize(torch.randn(100, {config.dimension}), dim=-1)",
        *carry,
        f'scores, found = rank(bridge, {x}, {a}, source="{x}", top=10)  # (2, 10) each',
    ]
    return "\n".join(["```python", *code, "```"])


def _requirements(config: BridgeConfig, facts: Mapping[str, Any]) -> str:
    encoder, store = facts.get("encoder"), facts.get("store", {})
    if encoder:
        name = f"{_code(encoder['name'])}, weights {_code(encoder['checkpoint_hash'])}"
    elif store:
        name = f"the one that made the store with fingerprint {_code(store.get('fingerprint'))}"
    else:
        name = "the one that it was trained on, which was not recorded"
    return (
        f"The frozen encoder: {name}. Embeddings of another encoder, or of another checkpoint of "
        "the same one, have the same shape and mean something else: the bridge cannot tell, and "
        "its scores are then worthless. Rows must be L2-normalised. It was trained on the corpus "
        "below; how well it does on other data has to be measured: `diffgap evaluate`."
    )


def _retrieval(rows: list[RetrievalRow], facts: Mapping[str, Any]) -> str:
    if not rows:
        return "Not measured."
    lines = [f"| split | direction | {' | '.join(RETRIEVAL.values())} |"]
    lines.append(f"|---|---|{'---:|' * len(RETRIEVAL)}")
    for row in rows:
        cells = [f"{row.values[m]:.1f}" if m in row.values else "-" for m in RETRIEVAL]
        lines.append(f"| {' | '.join([row.split, row.direction, *cells])} |")
    splits = " and ".join(sorted({row.split for row in rows}))
    corpus = markdown(_corpus(facts) or "a corpus that was not recorded")
    note = (
        f"On the {splits} split of {corpus}; R@K and mAP@10 in %, MedR in ranks. It is a single "
        "trained bridge: there is no spread over seeds."
    )
    return "\n".join([*lines, "", note])


def _training(config: BridgeConfig, facts: Mapping[str, Any]) -> str:
    store = facts.get("store", {})
    counts = ", ".join(f"{count} {split}" for split, count in store.get("counts", {}).items())
    packages = sorted(facts.get("packages", {}).items())
    details = {
        "Corpus": f"{_corpus(facts)} ({counts} clips)" if store else None,
        "Fingerprint of its embedding store": store.get("fingerprint"),
        "Trial": facts.get("signature"),
        "diffgap's git commit": facts.get("git_commit"),
        "Packages": ", ".join(f"{name} {version}" for name, version in packages),
        "Hardware": facts.get("hardware"),
    }
    lines = [f"- {title}: {markdown(str(value))}" for title, value in details.items() if value]
    trial = facts.get("trial")
    if trial:
        lines += ["", "To repeat it, run `diffgap train spec.yaml` with this spec:", ""]
        lines += ["```yaml", *_spec(trial, _corpus(facts) or "STORE"), "```"]
    return "\n".join(lines) or "How it was trained was not recorded."


def _spec(trial: Mapping[str, Any], store: str) -> Iterator[str]:
    """The sweep of one trial as lines of JSON, which is YAML too."""
    block = dict(trial)
    spec: dict[str, Any] = {"name": "again", "store": store}
    spec |= {field: block.pop(field) for field in ("task", "split") if field in block}
    seed, changes = block.pop("seed", 0), block.pop("changes", None)
    spec |= {"seeds": [seed], "trial": block}
    if changes:
        yield f"# population-based training changed these settings: {json_text(changes)}"
        yield "# no sweep can state that; repeat the trial with: diffgap rerun"
    yield "# store: a built-in corpus, or the path of a store with the fingerprint above"
    yield from json_text(spec, indent=2).splitlines()


def _licence(facts: Mapping[str, Any]) -> str:
    licence = markdown(str(facts.get("license", LICENSE)))
    return (
        f"Weights: {licence}. The encoder and the training data have licences of their own, which "
        "this one does not change.\n\n"
        "DiffGAP is the method of [arXiv 2503.12131](https://arxiv.org/abs/2503.12131); this "
        "bridge was trained with the software diffgap, not by the paper's authors.\n\n" + CITATION
    )


def _code(value: object) -> str:
    """A value as code, which a backtick in it would end."""
    return f"`{one_line(str(value)).replace('`', chr(39))}`"


def _corpus(facts: Mapping[str, Any]) -> str | None:
    """The name of the training corpus, where it is known."""
    name = facts.get("store", {}).get("name")
    return str(name) if name else None
