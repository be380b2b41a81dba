"""The registry of retrieval metrics: one entry is all that a new metric takes."""

from typing import get_args

import numpy as np
import pytest
import torch

from diffgap.evaluation.metrics import METRICS, MetricInfo, table_metrics
from diffgap.evaluation.retrieval import QueryRanks, summary
from diffgap.hub import RETRIEVAL
from diffgap.report.evaluate import choose_pairs, frozen_retrieval, metric_interval, scores_table
from diffgap.report.render import to_markdown
from diffgap.spec.sweep import Search
from diffgap.store.store import EmbeddingStore

RANKS = QueryRanks(torch.tensor([1, 2, 4, 10]), torch.tensor([1.0, 0.5, 0.25, 0.1]))


def test_metrics_have_the_names_and_columns_that_trials_and_tables_have_had():
    assert list(METRICS) == ["R1", "R5", "R10", "MedR", "mAP10"]
    assert [metric.title for metric in METRICS.values()] == ["R@1", "R@5", "R@10", "MedR", "mAP@10"]
    assert [metric.name for metric in table_metrics()] == ["R1", "R5", "R10"]
    assert all(name == metric.name for name, metric in METRICS.items())


def test_searches_maximise_metrics_of_the_registry():
    names = get_args(Search.model_fields["metric"].annotation)
    assert set(names) == {name for name, metric in METRICS.items() if metric.unit == "%"}


def test_a_model_card_calls_metrics_as_the_registry_does():
    assert {name: METRICS[name].title for name in RETRIEVAL} == RETRIEVAL


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        (MetricInfo("MRR", "MRR", lambda rank: 1 / rank), 100 * (1 + 1 / 2 + 1 / 4 + 1 / 10) / 4),
        (MetricInfo("R2", "R@2", lambda rank: rank <= 2), 50),
        (MetricInfo("MeanR", "MeanR", np.asarray, unit="ranks"), 17 / 4),
        (MetricInfo("AP", "AP", np.sqrt, column="ap10", average="median"), 50 * (0.5**0.5 + 0.5)),
    ],
)
def test_a_new_entry_is_logged_and_printed(monkeypatch, small_store, metric, expected):
    before = summary(RANKS)
    monkeypatch.setitem(METRICS, metric.name, metric)
    after = summary(RANKS)
    assert after.pop(metric.name) == pytest.approx(expected)
    assert after == before
    assert metric_interval(metric, RANKS, np.arange(4)).mean == pytest.approx(expected)

    store = EmbeddingStore.open(small_store)
    task = store.tasks[0]
    row = frozen_retrieval(choose_pairs(store, task, "test", None), task)
    assert metric.title in to_markdown(scores_table([row], store, task, "test"))
    for intervals in row.metrics.values():
        interval = intervals[metric.title]
        assert interval.low <= interval.mean <= interval.high


def test_only_means_in_percent_are_compared_in_tables():
    with pytest.raises(ValueError, match="MeanR: only a mean in % can be a column"):
        MetricInfo("MeanR", "MeanR", np.asarray, unit="ranks", in_tables=True)
