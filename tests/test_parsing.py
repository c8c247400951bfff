from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loreg.entities import Comparison, Metric, MetricCondition, Sort
from loreg.errors import UsageError
from loreg.parsing import (
    parse_comparison,
    parse_label,
    parse_metric,
    parse_metric_condition,
    parse_sort,
    parse_weights,
    parse_word,
)


@pytest.mark.parametrize(
    ("text", "metric"),
    [
        ("accuracy=0.93", Metric("accuracy", 0.93)),
        ("accuracy=0.93@imdb", Metric("accuracy", 0.93, "imdb")),
        ("f1=1@org/data:test", Metric("f1", 1.0, "org/data", "test")),
        ("eval_loss=-1.5e-3", Metric("eval_loss", -0.0015, higher_is_better=False)),
        ("perplexity=12@wiki", Metric("perplexity", 12.0, "wiki", higher_is_better=False)),
        ("wer=0.1", Metric("wer", 0.1, higher_is_better=False)),
        ("word_perplexity=12", Metric("word_perplexity", 12.0, higher_is_better=False)),
        ("bits_per_byte=0.9", Metric("bits_per_byte", 0.9, higher_is_better=False)),
        ("eval/bits-per-character=1.2", Metric("eval/bits-per-character", 1.2, higher_is_better=False)),
        ("bits=0.9", Metric("bits", 0.9)),
        ("lossless=1", Metric("lossless", 1.0)),
    ],
)
def test_metrics(text: str, metric: Metric):
    assert parse_metric(text) == metric


def test_a_metric_of_another_name_can_be_said_to_be_better_when_lower():
    assert not parse_metric("toxicity=0.1", lower_is_better=True).higher_is_better


@pytest.mark.parametrize(
    "text", ["", "accuracy", "accuracy=", "=1", "a=x", "a=nan", "a=inf", "a>1", "a b=1", "a=1@", "a=1 @x"]
)
def test_no_metrics(text: str):
    with pytest.raises(UsageError):
        parse_metric(text)


def test_conditions():
    assert parse_metric_condition("accuracy>=0.9@imdb") == MetricCondition("accuracy", Comparison(">=", 0.9), "imdb")
    assert parse_comparison("<=16") == Comparison("<=", 16)
    assert parse_comparison(" > 8 ") == Comparison(">", 8)
    assert parse_comparison("16") == Comparison("=", 16)


@pytest.mark.parametrize("text", ["", "<", "=>1", "16x", "<=16 32", "<>1"])
def test_no_comparisons(text: str):
    with pytest.raises(UsageError):
        parse_comparison(text)


def test_labels_words_and_orders():
    assert parse_label("team=search and rank = 1") == ("team", "search and rank = 1")
    assert parse_label("empty=") == ("empty", "")
    assert parse_word("text-classification", "task") == "text-classification"
    assert parse_sort("created") == Sort("created")
    assert parse_sort("metric:f1@imdb") == Sort("metric", "f1", "imdb")


@pytest.mark.parametrize("text", ["", "novalue", "=x", "a b=c", "k=line\nbreak", "k=" + "x" * 300])
def test_no_labels(text: str):
    with pytest.raises(UsageError):
        parse_label(text)


@pytest.mark.parametrize("text", ["", "metric", "metric:", "age", "created:x"])
def test_no_orders(text: str):
    with pytest.raises(UsageError):
        parse_sort(text)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=5))
def test_weights_are_any_finite_numbers(weights: list[float]):
    assert parse_weights(",".join(map(repr, weights))) == tuple(weights)


@pytest.mark.parametrize("text", ["", "0.7,", "a,b", "nan", "1;2", "inf,1"])
def test_no_weights(text: str):
    with pytest.raises(UsageError):
        parse_weights(text)
