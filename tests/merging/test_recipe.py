"""A stored recipe is read whole or refused in one line: nothing is merged by half of it."""

from __future__ import annotations

from typing import Any

import pytest

from loreg.entities import Source
from loreg.errors import UsageError
from loreg.merging.ranks import read_rank_rule
from loreg.merging.recipe import Recipe, read_recipe

RECIPE = Recipe((Source("a", "0" * 64, 0.5), Source("b", "1" * 64, 2.0)), weights_for={"q_proj": (1.0, 0.0)}, extras=1)


def stored(**changes: object) -> dict[str, Any]:
    document = {**RECIPE.to_json(), **changes}
    return {name: value for name, value in document.items() if value is not ...}


def test_a_recipe_that_was_written_is_the_same_when_it_is_read():
    assert read_recipe(stored()) == RECIPE


@pytest.mark.parametrize("field", sorted(set(RECIPE.to_json()) - {"schema"}))
def test_a_recipe_without_one_of_its_fields_is_refused(field: str):
    with pytest.raises(UsageError, match=f"the recipe cannot be repeated: it lacks '{field}'"):
        read_recipe(stored(**{field: ...}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": "loreg.recipe/3", "sources": 1}, "schema is 'loreg.recipe/3', expected 'loreg.recipe/2'"),
        ({"schema": ...}, "it lacks 'schema'"),
        ({"dropout": 0.1}, "dropout is not known"),
        ({"sources": [{"label": "a", "digest": "0" * 64}]}, r"sources\[0\] lacks 'weight'"),
        (
            {"sources": [{"label": "a", "digest": "0" * 64, "weight": 1, "sign": -1}], "extras": 0, "weights_for": {}},
            r"sources\[0\].sign is not known",
        ),
        ({"lambda": "2"}, "lambda is '2', expected a number"),
        ({"lambda": 10**400}, "lambda is 1000"),
        ({"extras": 2}, "extras is 2, expected the position of one of 2 sources"),
        ({"extras": -1}, "extras is -1, expected a whole number >= 0"),
        ({"weights_for": {"q_proj": [1]}}, "weights_for has 1 weights for 'q_proj', expected 2"),
        ({"weights_for": {"q_proj": [1, "x"]}}, "weights_for is .*, expected an object of lists of numbers"),
        ({"rank": {"fixed": 0}}, "rank 0 is not possible"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused_by_what_is_wrong_in_it(changes: dict[str, object], message: str):
    with pytest.raises(UsageError, match=message):
        read_recipe(stored(**changes))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("kind", ["fixed", "budget", "energy", "tolerance"])
def test_a_rank_that_is_no_finite_number_is_refused(kind: str, value: float):
    with pytest.raises(UsageError, match="is not possible"):
        read_rank_rule({kind: value})


def test_a_bad_pattern_is_one_of_the_recipe():
    with pytest.raises(UsageError, match=r"invalid pattern '\(' in weights_for"):
        Recipe(RECIPE.sources, weights_for={"(": (1.0, 1.0)}).weights("q_proj")
