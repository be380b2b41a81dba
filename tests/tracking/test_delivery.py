"""Messages arrive in order, each once, however long it takes."""

import threading
import time

import pytest

from diffgap.tracking import delivery as queue
from diffgap.tracking.delivery import DeliveryQueue, retry


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(queue, "FIRST_PAUSE_S", 0.01)


def make(is_transient=lambda error: True):
    trouble = []
    return DeliveryQueue(is_transient, trouble.append), trouble


def test_what_fails_is_tried_again_and_nothing_overtakes_it():
    box, trouble = make()
    attempts, arrived = iter([OSError("away"), OSError("still away"), None]), []

    def flaky():
        if error := next(attempts):
            raise error
        arrived.append("first")

    box.put(flaky)
    box.put(lambda: arrived.append("second"))
    assert box.close(patience=10) == 0
    assert arrived == ["first", "second"]
    assert [str(error) for error in trouble] == ["away", "None"]


def test_putting_never_waits():
    box, _ = make()
    gate = threading.Event()
    box.put(gate.wait)
    began = time.monotonic()
    box.put(lambda: None)
    assert time.monotonic() - began < 0.5
    gate.set()
    assert box.close(patience=10) == 0


def test_what_cannot_get_better_is_dropped_and_kept_in_mind():
    box, _ = make(lambda error: not isinstance(error, KeyError))
    arrived = []
    box.put(lambda: {}["missing"])
    box.put(lambda: arrived.append("next"))
    assert box.close(patience=10) == 0
    assert arrived == ["next"]
    assert [type(error) for error in box.errors] == [KeyError]


def test_patience_ends_and_says_how_much_is_left():
    def away():
        raise OSError("away")

    box, _ = make()
    for _ in range(3):
        box.put(away)
    assert box.close(patience=0.1) == 3


def test_a_retry_returns_what_succeeds_and_raises_what_cannot():
    outcomes, trouble = [OSError("away"), OSError("away"), "there"], []

    def attempt():
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    assert retry(attempt, lambda error: True, trouble.append, lambda: False) == "there"
    assert [str(error) for error in trouble] == ["away", "None"]
    outcomes[:] = [KeyError("missing"), "there"]
    with pytest.raises(KeyError):
        retry(attempt, lambda error: False, trouble.append, lambda: False)
    outcomes[:] = [OSError("away"), OSError("still away"), "there"]
    patience = iter([False, True])
    with pytest.raises(OSError, match="still away"):
        retry(attempt, lambda error: True, trouble.append, lambda: next(patience))
