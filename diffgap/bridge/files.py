"""Files of a bridge, checked whole before anything is built of them.

A bridge may come from a hub, a colleague or a disk that was full. Sizes are compared with bounds
and with the header of the weights first, so that a wrong number costs no time and no memory.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, fields
from functools import cache
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from safetensors import SafetensorError, safe_open
from torch import Tensor

from diffgap.bridge.config import BridgeConfig, Objective, ScoreConfig
from diffgap.bridge.registry import METHODS
from diffgap.bridge.schedules import SCHEDULES
from diffgap.errors import UserError, nearest
from diffgap.io.json_text import json_text

WEIGHTS, CONFIG, METRICS = "bridge.safetensors", "config.json", "metrics.json"

MAX_JSON_BYTES = 2**20  # of config.json; a trial's has a few thousand
MAX_HEADER_BYTES = 2**20  # of the weights' list of tensors; the largest network's has 40,000
MAX_PROBLEMS, MAX_NAMES = 20, 5  # that an error lists
REMEDY = "copy the bridge again, or retrain it"
LATER = ("normalise", "normalise_strength", "normalise_neighbours", "normalise_pool")
"""Fields of the score that older bridges lack."""
REPLACED = {("diffusion_bridge", "timesteps"): ": it is of a version that did this in another way"}
"""Why an option is missing from the bridges of a method that has become another since."""
UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")  # of models and of dataclasses
MODALITY = re.compile(r"[a-z][a-z0-9_]*")

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
LAX = ConfigDict(extra="forbid", allow_inf_nan=False)
OPEN = ConfigDict(extra="allow", strict=True)


class _Config(BaseModel):
    model_config = STRICT
    bridge: BridgeConfig


class _Encoder(BaseModel):
    model_config = OPEN
    name: str
    checkpoint_hash: str


class _Store(BaseModel):
    model_config = OPEN
    name: str = ""
    fingerprint: str = ""
    counts: dict[str, int] = {}


class _Facts(BaseModel):
    """What is recorded beside a bridge; see `diffgap.hub`. Others may be there too."""

    model_config = OPEN
    # Absent, or an object: never null.
    encoder: _Encoder = Field(default_factory=lambda: _Encoder(name="", checkpoint_hash=""))
    store: _Store = _Store()
    trial: dict[str, Any] = {}
    packages: dict[str, str] = {}
    threads: int = Field(default=1, ge=1)
    name: str = ""
    license: str = ""
    signature: str = ""
    git_commit: str = ""
    hardware: str = ""


class _Metrics(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)
    metrics: dict[str, float]


def read_config(folder: Path) -> BridgeConfig:
    """The config of a saved bridge.

    Raises:
        FileNotFoundError: where there is none.
        UserError: naming each field that is missing, unknown or wrong.
    """
    path, content = folder / CONFIG, _read(folder)
    problems = [*_missing(content), *_facts_problems(content)]
    if not problems:
        config, problems = _parse(content["bridge"])
    _refuse(path, problems)
    assert config
    return config


def read_facts(folder: Path) -> dict[str, Any]:
    """What is recorded beside a saved bridge's config, with its metrics where it has some."""
    facts = _read(folder)
    _refuse(folder / CONFIG, _facts_problems(facts))
    facts.pop("bridge", None)
    path = folder / METRICS
    if path.is_file():
        facts["metrics"] = _read_json(path)
        _refuse(path, _problems(_Metrics, {"metrics": facts["metrics"]}))
    return facts


def check_config(config: BridgeConfig) -> None:
    """Raises UserError where a bridge of this config could not be read again."""
    _, problems = _parse(json.loads(json_text(asdict(config))))
    if problems:
        raise UserError(*problems)


def check_finite(weights: Mapping[str, Tensor], where: str) -> None:
    """Raises UserError where a weight is NaN or infinite."""
    names = [name for name, value in weights.items() if not bool(torch.isfinite(value).all())]
    if names:
        raise UserError(f"{where}: {_some(names)} has NaN or infinite weights; retrain the bridge")


def read_weights(folder: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a saved bridge; `expected` are tensors of the same shapes, perhaps meta.

    Raises:
        FileNotFoundError: where there are none.
        UserError: where tensors are missing, unexpected, of another shape or type, or not finite.
    """
    path = folder / WEIGHTS
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no {WEIGHTS}; {REMEDY}")
    _check_size(path, sum(4 * tensor.numel() for tensor in expected.values()))
    try:
        with safe_open(path, framework="pt") as file:
            _refuse(path, _shape_problems(file, expected))
            weights = {name: file.get_tensor(name) for name in expected}
    except SafetensorError as error:
        raise UserError(f"{path}: cannot be read ({error}); {REMEDY}") from None
    check_finite(weights, str(path))
    return weights


def _check_size(path: Path, expected: int) -> None:
    """Refuses a file whose size, or that of its header, is far from that of the expected data."""
    with path.open("rb") as stream:
        header_bytes = int.from_bytes(stream.read(8), "little")
    if not 2 <= header_bytes <= MAX_HEADER_BYTES:
        problem = f"a header of {header_bytes} bytes is not in [2, {MAX_HEADER_BYTES}]"
        raise UserError(f"{path}: cannot be read ({problem}); {REMEDY}")
    if (size := path.stat().st_size) > 2 * (MAX_HEADER_BYTES + expected):
        problem = f"{size} bytes, where its config makes it {expected} and a header"
        raise UserError(f"{path}: {problem}; {REMEDY}")


def _read(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no {CONFIG}; give a trial's bridge directory")
    return _read_json(path)


def _read_json(path: Path) -> dict[str, Any]:
    """A file's JSON object, which can be written again."""
    if (size := path.stat().st_size) > MAX_JSON_BYTES:
        raise UserError(f"{path}: {size} bytes, more than {MAX_JSON_BYTES}; {REMEDY}")
    try:
        content = json.loads(path.read_bytes())
        json_text(content)  # json reads NaN, and takes 1e999 for infinity
        json.dumps(content, ensure_ascii=False).encode()  # halves of characters are text to json
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error}); {REMEDY}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: a JSON {type(content).__name__}, not an object; {REMEDY}")
    return content


def _refuse(path: Path, problems: Iterable[str]) -> None:
    lines = [f"{path}: {problem}; {REMEDY}" for problem in problems]
    if (hidden := len(lines) - MAX_PROBLEMS) > 0:
        lines[MAX_PROBLEMS:] = [f"{path}: {hidden} more mistakes"]
    if lines:
        raise UserError(*lines)


def _missing(content: Mapping[str, Any]) -> Iterator[str]:
    """The fields that every bridge's config has; a default would mean another bridge."""
    blocks = {"bridge": BridgeConfig, "bridge.objective": Objective, "bridge.score": ScoreConfig}
    for key, config_class in blocks.items():
        block: Any = content
        for part in key.split("."):
            block = block.get(part) if isinstance(block, dict) else None
        if isinstance(block, dict):
            for field in fields(config_class):
                if field.name not in (*block, *LATER):
                    yield f"{key}.{field.name} is missing"
        elif key == "bridge":
            yield f"bridge is {'not an object' if 'bridge' in content else 'missing'}"


def _facts_problems(content: Mapping[str, Any]) -> list[str]:
    names = content.keys() & _Facts.model_fields.keys()
    return _problems(_Facts, {name: content[name] for name in names})


def _parse(block: Any) -> tuple[BridgeConfig | None, list[str]]:
    """The config of a block, and what is wrong with it."""
    content = {"bridge": block}
    problems = _problems(_Config, content)
    if problems:
        return None, problems
    config = _Config.model_validate_json(json.dumps(content)).bridge
    return config, list(_combination_problems(config))


def _combination_problems(config: BridgeConfig) -> Iterator[str]:
    """What no field shows by itself."""
    x, a = config.modalities
    if x == a or not all(map(MODALITY.fullmatch, config.modalities)):
        yield f"bridge.modalities: {[x, a]} are not two names as in ['text', 'audio']"
    if config.schedule not in SCHEDULES:
        hint = nearest(config.schedule, SCHEDULES)
        yield f"bridge.schedule: {_short(config.schedule)} is unknown; {hint}"
    if config.method not in METHODS:
        hint = nearest(config.method, METHODS)
        yield f"bridge.method: {_short(config.method)} is unknown; {hint}"
        return
    method, kind = METHODS[config.method], config.score.kind
    options = {"bridge": {"options": dict(config.options)}}
    yield from _problems(_options_model(config.method), options)
    for field in fields(method.options) if method.options else ():
        if field.name not in config.options:
            reason = REPLACED.get((config.method, field.name), "")
            yield f"bridge.options.{field.name} is missing{reason}"
    is_diffusion = config.cdm and method.score is None
    if method.carries and (
        (kind == "rerank" and not is_diffusion and method.score != "rerank")
        or (kind == "sample" and not is_diffusion and method.score != "sample")
    ):
        yield f"bridge.score.kind: {kind} is not a score of {config.method}; bridge is one"
    if method.trained and min(config.width, config.blocks) < 1 and (config.cdm or config.bst):
        yield f"bridge.width, blocks: {config.width}, {config.blocks} are not in [1, inf)"


@cache
def _options_model(method: str) -> type[BaseModel]:
    """The model of a config's `bridge.options`, for one method."""
    options = METHODS[method].options or create_model("NoOptions", __config__=LAX)
    block = create_model("Block", __config__=LAX, options=(options, ...))
    model: type[BaseModel] = create_model("OptionsFile", __config__=LAX, bridge=(block, ...))
    return model


def _problems(model: type[BaseModel], content: Mapping[str, Any]) -> list[str]:
    """A line for each field of an object that a model refuses: its name, value and mistake."""
    try:
        model.model_validate_json(json.dumps(content))
    except ValidationError as error:
        lines = []
        for detail in error.errors(include_url=False):
            mistake = detail["msg"].removeprefix("Input ")
            if detail["type"] in UNKNOWN:
                mistake = "is unknown"
            lines.append(f"{_key(detail['loc'])}: {_short(detail['input'])} {mistake}")
        return lines
    return []


def _key(parts: tuple[int | str, ...]) -> str:
    """A path as people write it: ``bridge.score.levels[1]``."""
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else f".{_short(part)[1:-1]}"
    return text.removeprefix(".")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _shape_problems(file: Any, expected: Mapping[str, Tensor]) -> Iterator[str]:
    """Differences of a file's tensors from the expected ones, by the header alone."""
    names = set(file.keys())
    if missing := sorted(expected.keys() - names):
        yield f"lacks {_some(missing)}"
    if unexpected := sorted(names - expected.keys()):
        yield f"holds {_some(unexpected)}, which its config has no place for"
    for name in sorted(names & expected.keys()):
        part, shape = file.get_slice(name), tuple(expected[name].shape)
        if tuple(part.get_shape()) != shape:
            yield f"{name} has shape {tuple(part.get_shape())}; its config makes it {shape}"
        elif part.get_dtype() != "F32":
            yield f"{name} is of type {part.get_dtype()}, not F32"


def _some(names: list[str]) -> str:
    listed = ", ".join(_short(name)[1:-1] for name in names[:MAX_NAMES])
    return listed if len(names) <= MAX_NAMES else f"{listed} and {len(names) - MAX_NAMES} more"
