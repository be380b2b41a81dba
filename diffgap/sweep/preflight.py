"""Checks of a cluster's nodes before a sweep starts: whether each can run its trials."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from diffgap import __version__
from diffgap.encoders.builtin import cache_directory
from diffgap.errors import UserError
from diffgap.io.atomic import new_directory
from diffgap.io.paths import RemotePath, SharedPath, parse_path
from diffgap.io.redact import redact
from diffgap.ledger.ledger import IDENTITY, Ledger

ANSWER_S = 60.0
"""How long a node may take to answer."""


def has_several_nodes() -> bool:
    """Whether trials may run on other machines than this one."""
    import ray

    nodes = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
    return bool(nodes - {ray.get_runtime_context().get_node_id()})


def shared_store(store: str, ledger: Ledger) -> str:
    """The path of a store on every node; UserError where it or the output is not shared."""
    is_builtin = Path(store).is_relative_to(cache_directory())
    problems = []
    if not isinstance(ledger.output, SharedPath | RemotePath):
        problems.append(_not_shared("--output", str(ledger.output)))
    if not is_builtin and "://" not in store:
        problems.append(_not_shared("store", store))
    if problems:
        raise UserError(*problems)
    if not is_builtin:
        return store
    target = ledger.output / "stores" / Path(store).name
    if not (target / "manifest.json").is_file():
        with new_directory(target, "manifest.json") as temporary:
            shutil.copytree(store, temporary, dirs_exist_ok=True)
    return str(target)


def _not_shared(field: str, path: str) -> str:
    return (
        f"{field}: {path} is a path of this machine, and the cluster has others; put it where all "
        f"of them see it, such as s3://BUCKET/DIR, or say that they share it: file://{path}"
    )


def check_nodes(ledger: Ledger, store: str) -> None:
    """UserError with a line for each node without the output, the store or this version."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    identity, probe = ledger.identity(), ray.remote(num_cpus=0, max_retries=1)(_probe)
    answers = {}
    for node in ray.nodes():
        if node["Alive"]:
            on_node = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            answer = probe.options(scheduling_strategy=on_node).remote(str(ledger.output), store)
            answers[node["NodeManagerAddress"]] = answer
    # One deadline for all of them: a large cluster may have many nodes that do not answer.
    ray.wait(list(answers.values()), num_returns=len(answers), timeout=ANSWER_S)
    problems = [_problem(host, answer, identity) for host, answer in answers.items()]
    if any(problems):
        raise UserError(*filter(None, problems))


def _probe(output: str, store: str) -> dict[str, Any]:
    """What a node has and sees; runs there."""
    from diffgap.store.store import EmbeddingStore

    facts: dict[str, Any] = {"version": __version__, "identity": None, "store": None}
    # `Ledger.identity` would create the file on a node that does not see the output.
    if (parse_path(output) / IDENTITY).is_file():
        facts["identity"] = Ledger.at(output).identity()
    try:
        EmbeddingStore.open(store)
    except UserError as error:
        facts["store"] = error.problems[0]
    return facts


def _problem(host: str, answer: Any, identity: str) -> str | None:
    """What keeps a node from taking part, in one line; None where nothing does."""
    import ray
    from ray.exceptions import GetTimeoutError, RayError

    try:
        facts = ray.get(answer, timeout=0.1)
    except GetTimeoutError:
        return f"node {host} did not answer within {ANSWER_S:.0f} s; look at: ray status"
    except RayError as error:
        last_line = str(error).strip().rpartition("\n")[2]  # of the remote traceback
        return (
            f"node {host} cannot run trials: {redact(last_line.strip())}; install this version of "
            "diffgap there, or send it along with: diffgap submit"
        )
    if facts["version"] != __version__:
        return f"node {host} has diffgap {facts['version']}, and this is {__version__}; align them"
    if facts["identity"] != identity:
        return f"node {host} does not see --output; mount it there, or use s3://BUCKET/DIR"
    return facts["store"] and f"node {host}: {facts['store']}"
