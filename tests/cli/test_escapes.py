"""Words of others, such as captions and names: they are shown, and do nothing."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from diffgap.bridge.config import BridgeConfig, ScoreConfig
from diffgap.bridge.methods import make_bridge
from diffgap.cli.main import main
from diffgap.io.printable import UNPRINTABLE

CAPTION = "a dog\x1b]0;owned\x07\x1b[2J barks \x9b31m[red]loud[/red] \u202egpj.exe\r\nerror: fake"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A store whose captions, ids and labels are hostile, and a bridge for it."""
    from diffgap.store.importing import import_store

    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    audio = rng.normal(size=(8, 16))
    ids = [f"=clip\x1b[3{number}m" for number in range(8)]
    np.savez(
        "a.npz", audio=audio, text=audio, split=["test"] * 8, id=ids, caption=[CAPTION] * 8,
        label=["l\x1b[1m"] * 8,
    )  # fmt: skip
    import_store(Path("a.npz"), Path("store"), corpus="corpus\x1b]8;;http://x\x07\x1b[2J")
    config = BridgeConfig(("text", "audio"), 16, 8, 1, True, True, "diffgap",
                          score=ScoreConfig("cosine"))  # fmt: skip
    make_bridge(config).save_pretrained("bridge")
    return tmp_path


def invoke(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.mark.parametrize(
    "words",
    [
        ("store", "show", "store"),
        ("evaluate", "--baseline", "--store", "store"),
        ("retrieve", "bridge", "--store", "store", "--clip", "=clip\x1b[31m"),
        ("retrieve", "bridge", "--store", "store", "--clip", "no\x1b[31msuch"),
        ("store", "show", "no\x1b[31msuch"),
        ("sh\x1b[31mow",),
    ],
    ids=["show", "evaluate", "retrieve", "unknown clip", "unknown store", "unknown command"],
)
def test_no_control_character_reaches_the_terminal(here, words):
    done = invoke(*words)
    assert done.exit_code in (0, 2)
    assert isinstance(done.exception, SystemExit | None)
    said = done.stdout + done.stderr
    assert not UNPRINTABLE.findall(said)
    assert "␛" in said or "\\x1b" in said  # shown, and not just gone


def test_brackets_are_no_markup(here):
    done = invoke("retrieve", "bridge", "--store", "store", "--clip", "=clip\x1b[31m")
    assert "[red]loud[/red]" in done.stdout


def test_a_search_in_json_has_the_words_as_they_are(here):
    done = invoke(
        "retrieve", "bridge", "--store", "store", "--clip", "=clip\x1b[31m", "--format", "json"
    )
    assert not UNPRINTABLE.findall(done.stdout)
    (result,) = json.loads(done.stdout)
    assert result["query"] == "=clip\x1b[31m"


def test_a_card_shows_a_corpus_that_is_called_like_markup(here):
    config = json.loads(Path("bridge/config.json").read_text())
    config["store"] = {"name": "<img src=x>|**[a](b)\n# title", "counts": {"test": 8}}
    Path("bridge/config.json").write_text(json.dumps(config))
    Path("bridge/metrics.json").write_text(json.dumps({"test/text_to_audio/R1": 10.0}))
    assert invoke("push", "bridge", "card").exit_code == 0
    body = Path("card/README.md").read_text().split("---\n", 2)[2]
    assert r"\<img src=x>\|\*\*\[a\](b) # title" in body
    assert "<img" not in body.replace(r"\<img", "")
