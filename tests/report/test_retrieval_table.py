"""Frozen and bridged retrieval on a store, beside what was published."""

import io

import numpy as np
import pytest
from rich.console import Console

from diffgap.errors import UserError
from diffgap.report.evaluate import (
    bridge_retrieval,
    choose_pairs,
    frozen_retrieval,
    scores_table,
)
from diffgap.report.formats import print_tables
from diffgap.report.references import Reference, read_references, retrieval_references
from diffgap.store.importing import import_store
from diffgap.store.store import EmbeddingStore


@pytest.fixture
def audiocaps(tmp_path):
    """Ten clips called audiocaps, with five captions each; every second clip's miss it."""
    axes = np.eye(16, dtype=np.float32)
    audio = axes[:10]
    text = np.repeat(audio[:, None], 5, axis=1)
    text[1::2] = 0.9 * text[::2] + 0.4 * axes[15]
    text += 0.01 * np.arange(5)[:, None] * axes[14]  # no two captions are the same
    labels = ["dog", "rain"] * 5
    np.savez(tmp_path / "a.npz", audio=audio, text=text, split=["test"] * 10, label=labels)
    return import_store(tmp_path / "a.npz", tmp_path / "store", corpus="audiocaps")


def test_every_caption_is_a_query_and_the_best_of_five_counts(audiocaps):
    retrieval = frozen_retrieval(choose_pairs(audiocaps, "text-audio", "test", None), "text-audio")
    assert retrieval.queries == {"text->audio": 50, "audio->text": 10}
    assert retrieval.metrics["text->audio"]["R@1"].mean == 50.0
    assert retrieval.metrics["audio->text"]["R@1"].mean == 50.0
    assert retrieval.metrics["text->audio"]["R@10"].mean == 100.0
    assert retrieval.metrics["text->audio"]["MedR"].mean > 1
    interval = retrieval.metrics["text->audio"]["R@1"]
    assert interval.low < 50 < interval.high


def test_so_many_clips_a_class_are_chosen_by_id(audiocaps):
    some = choose_pairs(audiocaps, "text-audio", "test", 2)
    assert len(some.ids) == 4
    assert len(some.x) == 20
    assert set(some.owner) == {0, 1, 2, 3}
    labels = audiocaps.labels()
    assert sorted(labels[name] for name in some.ids) == ["dog", "dog", "rain", "rain"]


def test_published_rows_stand_apart_with_their_sources(audiocaps):
    rows = [frozen_retrieval(choose_pairs(audiocaps, "text-audio", "test", None), "text-audio")]
    console = Console(file=io.StringIO(), width=240)
    print_tables([scores_table(rows, audiocaps, "text-audio", "test")], console)
    text = console.file.getvalue()
    published = retrieval_references("audiocaps", "text-audio")
    assert {"ML-CLAP"} <= {reference.method for reference in published}
    for number, reference in enumerate(published, 1):
        assert f"{reference.method} [{number}]" in text
        assert f"{reference.metrics['text->audio R@1']:.1f}" in text
        assert f"[{number}] {reference.source} ({reference.seen})" in text


def test_nothing_is_published_on_the_embedded_corpus():
    assert retrieval_references("soundscapes", "text-audio") == []


def test_every_reference_has_a_source_and_nothing_of_the_papers_own_table():
    references = read_references()
    assert len(references) > 15
    assert all(reference.source for reference in references)
    assert not [r for r in references if "DiffGAP" in r.method]
    assert Reference.model_validate(references[0].model_dump()) == references[0]


def test_a_broken_file_of_references_names_its_entries(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "- {task: a, dataset: b, method: c, metrics: {R: x}, seen: table}\n"
    )
    with pytest.raises(UserError) as error:
        read_references(tmp_path / "mine.yaml")
    problems = "\n".join(error.value.problems)
    assert "entry 0, metrics.R" in problems
    assert "entry 0, source: Field required" in problems


def test_a_bridge_that_is_not_there_or_does_not_fit_is_refused(tmp_path, audiocaps, small_store):
    pairs = choose_pairs(audiocaps, "text-audio", "test", None)
    with pytest.raises(UserError, match=r"BRIDGE: .* holds no config.json"):
        bridge_retrieval(tmp_path, audiocaps, pairs, "text-audio")
    assert EmbeddingStore.open(small_store).labels()
