"""The index gives what comparing with every version gives, of those that may be read."""

from __future__ import annotations

import numpy as np
import pytest

from loreg.catalog.sketches import SignRow
from loreg.identity.sketch import sign_words
from loreg.local.sketch_index import SketchIndex


class Rows:
    """What a transaction reads: the sketches so far."""

    def __init__(self) -> None:
        self.rows: list[SignRow] = []

    def list_signs(self, tx: object, after: int, limit: int) -> list[SignRow]:
        return [row for row in self.rows if row.id > after][:limit]


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> Rows:
    rows = Rows()
    monkeypatch.setattr("loreg.catalog.sketches.list_signs", rows.list_signs)
    return rows


def agreements(vectors: np.ndarray, query: np.ndarray) -> np.ndarray:
    return np.abs(((vectors < 0) != (query < 0)).sum(1) - 128)


@pytest.mark.parametrize("size", [1, 5, 700, 70_000])
def test_the_nearest_are_those_whose_signs_agree_or_disagree_the_most(rows: Rows, size: int):
    rng = np.random.default_rng(size)
    vectors = rng.standard_normal((size, 256))
    rows.rows = [SignRow(i + 1, 10 + i, f"team{i % 3}", sign_words(v)) for i, v in enumerate(vectors)]
    index = SketchIndex()
    index.refresh(None)
    for query in (rng.standard_normal(256), vectors[0], -vectors[-1]):
        expected = agreements(vectors, query)
        for readable in (None, {"team1"}):
            allowed = np.array([readable is None or i % 3 == 1 for i in range(size)])
            best = sorted(np.where(allowed, expected, 0), reverse=True)[:20]
            nearest = index.nearest(sign_words(query), 20, readable)
            assert [expected[version - 10] for version in nearest] == [value for value in best if value]
            assert all(allowed[version - 10] for version in nearest)


def test_rows_that_come_later_are_added_and_those_that_were_overtaken_too(rows: Rows):
    rng = np.random.default_rng(1)
    signs = [sign_words(v) for v in rng.standard_normal((600, 256))]
    signed = [SignRow(i + 1, i, "", signs[i]) for i in range(600)]
    index = SketchIndex()
    rows.rows = [row for row in signed[:400] if row.id != 390]  # its writer has not committed yet
    index.refresh(None)
    rows.rows = signed
    index.refresh(None)
    for _ in range(2):
        nearest = index.nearest(signs[389], 600, None)
        assert len(set(nearest)) == len(nearest) > 550  # but for those of which exactly a half agree
        assert index.nearest(signs[389], 1, None) == [389]
        index.refresh(None)


def test_an_index_of_nothing_finds_nothing(rows: Rows):
    index = SketchIndex()
    index.refresh(None)
    assert index.nearest((0, 0, 0, 0), 5, None) == []
