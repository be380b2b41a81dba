"""One of a trial's workers, in a process of its own, which runs several trials in turn.

    python worker.py STORE OUT RANK WORKERS < CASES

CASES are lines of JSON: `name` (its ledger is OUT/name), `trial`, and perhaps `until` and
`converter`, DeepSpeed's stand-in; or `name` and `batch`, trials that run at once, whose ends each
worker writes to OUT/name/ends-RANK.txt. One process group serves them all.
"""

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from diffgap.ledger.ledger import Ledger
from diffgap.spec import Trial
from diffgap.training import resume as elastic
from diffgap.training.autotune import batch_is_faster, batch_pays
from diffgap.training.batched import PackMember, can_batch, run_batched
from diffgap.training.context import TrialContext
from diffgap.training.loop import StoppedError
from diffgap.training.trial import run_trial

SIGNATURE = "0123456789ab"
CONVERTER = elastic.CONVERTER


@contextmanager
def log_of(path: Path, rank: int) -> Iterator[logging.Logger]:
    """Appends what the package logs to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter(f"worker {rank} %(levelname)s: %(message)s"))
    logger = logging.getLogger("diffgap")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield logger
    finally:
        logger.removeHandler(handler)


def run_case(store: str, out: Path, case: dict, rank: int = 0, workers: int = 1) -> None:
    """Runs one trial, to its end or until it pauses."""
    elastic.CONVERTER = case.get("converter", CONVERTER)
    ledger = Ledger(out / case["name"])
    record = ledger.trial(SIGNATURE)
    context = TrialContext(record, torch.device("cpu"), rank, workers, case.get("until"))
    with log_of(record.log, rank) as log:
        try:
            run_trial(Trial.model_validate(case["trial"]), SIGNATURE, store, ledger, context)
        except StoppedError as stop:
            log.info("%s", stop)
        finally:
            elastic.CONVERTER = CONVERTER


def run_batch(store: str, out: Path, case: dict, rank: int, workers: int) -> None:
    """Runs trials as one batch; their signatures are 12 digits, counted from 0."""
    ledger = Ledger(out / case["name"])
    members = []
    for number, fields in enumerate(case["batch"]):
        signature = f"{number:012x}"
        context = TrialContext(ledger.trial(signature), torch.device("cpu"), rank, workers)
        members.append(PackMember(Trial.model_validate(fields), signature, context))
    assert can_batch(members)
    assert batch_is_faster(members, store, torch.device("cpu")) in (True, False)
    assert not batch_pays(members, store)  # known on a CPU
    ends = []
    run_batched(members, store, ledger, lambda m, error: ends.append(f"{m.signature} {error}\n"))
    (ledger.output / f"ends-{rank}.txt").write_text("".join(ends))


def main(store: str, out: Path, rank: int, workers: int) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{out}/rendezvous-{workers}", rank=rank, world_size=workers
    )
    for line in sys.stdin:
        case = json.loads(line)
        (run_batch if "batch" in case else run_case)(store, out, case, rank, workers)
        torch.distributed.barrier()  # one that leaves first would end the others' connections
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
