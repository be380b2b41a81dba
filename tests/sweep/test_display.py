"""What a person sees of a running sweep, where it is no terminal and where it is one."""

from io import StringIO

import pytest
from rich.console import Console

from diffgap.spec import Trial
from diffgap.sweep.display import SweepDisplay
from diffgap.sweep.plan import planned_trial

TRIAL = {"task": "text-audio", "train": {"steps": 8, "batch_size": 32, "epoch_steps": 4}}
METRICS = {"val/text_to_audio/R5": 40.0, "val/audio_to_text/R5": 50.0}


def planned(seed):
    return planned_trial(Trial.model_validate({**TRIAL, "seed": seed}), {}, "store")


@pytest.fixture
def display():
    """Of five trials, of which two are finished."""
    return SweepDisplay(Console(file=StringIO(), width=120, height=10), total=5, to_run=3)


def test_trials_are_counted_by_their_states(display):
    first, second = planned(0), planned(1)
    assert display.counts() == {"waiting": 3, "finished": 2}
    display.add(first)
    display.add(second)
    display.started(first.signature)
    display.started(second.signature)
    display.paused(second.signature)
    assert display.counts() == {"finished": 2, "running": 1, "paused": 1, "waiting": 1}
    display.finished(first.signature)
    display.failed(second.signature, "the loss is nan")
    assert display.counts() == {"finished": 3, "waiting": 1, "failed": 1}


def test_each_event_is_a_line_where_there_is_no_terminal(display):
    one = planned(0)
    display.add(one)
    display.paused(one.signature)  # which has not started: nothing to say
    display.started(one.signature)
    display.progress(one.signature, 4, METRICS)
    display.progress(one.signature, 8, {"train/loss": 0.5})
    display.finished(one.signature)
    lines = display.console.file.getvalue().splitlines()
    assert lines[:3] == [
        "  seed 0: started", "  seed 0: step 4/8, val R@5 40.0 / 50.0", "  seed 0: step 8/8",
    ]  # fmt: skip
    assert lines[3].startswith("  seed 0: finished in 0 s; 3 of 5 trials, about ")
    assert lines[3].endswith("best R@5 on val so far 45.0 (seed 0)")
    assert len(lines) == 4


def test_a_screen_that_is_too_small_shows_what_is_running():
    display = SweepDisplay(Console(file=StringIO(), height=10), total=20, to_run=20)
    trials = [planned(seed) for seed in range(20)]
    for one in trials:
        display.add(one)
    for one in trials[:10]:
        display.started(one.signature)
    for one in trials[2:10]:
        display.finished(one.signature)
    labels = [row.label for row in display._visible_rows()]
    assert labels == [f"seed {seed}" for seed in (7, 8, 9, 0, 1)]


def test_trials_that_nobody_counted_before_are_counted_once_they_are_known(display):
    for seed in range(4):  # one more than were to run
        one = planned(seed)
        display.add(one)
        display.started(one.signature)
        display.finished(one.signature)
    lines = display.console.file.getvalue().splitlines()
    assert "; 5 of 5 trials" in lines[5]
    assert "; 6 of 6 trials" in lines[7]
