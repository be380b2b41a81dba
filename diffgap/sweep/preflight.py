"""Whether every node of a cluster can do its part of a sweep, asked before anything starts."""

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


def several_nodes() -> bool:
    """Whether trials may run on other machines than this one."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    others = [n for n in ray.nodes() if n["Alive"] and n["NodeID"] != here]
    return bool(others)


def shared_store(store: str, ledger: Ledger) -> str:
    """Where every node finds a store: an embedded corpus's is put beside the output.

    Raises:
        UserError: where the store or the output is a path of this machine alone, with the remedy.
    """
    problems = []
    if not isinstance(ledger.output, SharedPath | RemotePath):
        problems.append(_not_shared("--output", str(ledger.output)))
    builtin = Path(store).is_relative_to(cache_directory())
    if not builtin and "://" not in store:
        problems.append(_not_shared("store", store))
    if problems:
        raise UserError(*problems)
    if not builtin:
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
    """Asks every node whether it sees the output and the store, and has this version of diffgap.

    Raises:
        UserError: with a line for each node that cannot take part.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    identity, look = ledger.identity(), ray.remote(num_cpus=0, max_retries=1)(_look)
    asked = {}
    for node in ray.nodes():
        if node["Alive"]:
            on = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            answer = look.options(scheduling_strategy=on).remote(str(ledger.output), store)
            asked[node["NodeManagerAddress"]] = answer
    ray.wait(list(asked.values()), num_returns=len(asked), timeout=ANSWER_S)
    problems = [p for host, ref in asked.items() if (p := _problem(host, ref, identity))]
    if problems:
        raise UserError(*problems)


def _look(output: str, store: str) -> dict[str, Any]:
    """What a node sees; runs there."""
    from diffgap.store.store import EmbeddingStore

    facts: dict[str, Any] = {"version": __version__, "identity": None, "store": None}
    path = parse_path(output) / IDENTITY
    if path.is_file():
        facts["identity"] = Ledger.at(output).identity()
    try:
        EmbeddingStore.open(store)
    except UserError as error:
        facts["store"] = error.problems[0]
    return facts


def _problem(host: str, answer: Any, identity: str) -> str | None:
    """What is wrong with a node, in one line; None where all is well."""
    import ray
    from ray.exceptions import GetTimeoutError, RayError

    try:
        facts = ray.get(answer, timeout=0.1)
    except GetTimeoutError:
        return f"node {host} did not answer within {ANSWER_S:.0f} s; look at: ray status"
    except RayError as error:
        reason = next((line for line in reversed(str(error).splitlines()) if line.strip()), "")
        return (
            f"node {host} cannot run trials: {redact(reason.strip())}; install this version of "
            "diffgap there, or send it along with: diffgap submit"
        )
    if facts["version"] != __version__:
        return f"node {host} has diffgap {facts['version']}, and this is {__version__}; align them"
    if facts["identity"] != identity:
        return f"node {host} does not see --output; mount it there, or use s3://BUCKET/DIR"
    return facts["store"] and f"node {host}: {facts['store']}"
