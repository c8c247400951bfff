"""Every error has a status of its own meaning, and comes back to the client as what it was."""

from __future__ import annotations

import importlib
import json
import pkgutil

import pytest

import loreg
from loreg.errors import ConflictError, LoregError, StaleError, UnderWayError, of_code
from loreg.server.problems import problem_response


def every_kind() -> list[type[LoregError]]:
    """Every class of errors that any module of the library declares, without the root of all."""
    for module in pkgutil.walk_packages(loreg.__path__, "loreg."):
        if not module.name.startswith("loreg.plugins"):  # they import the programs that they are made for
            importlib.import_module(module.name)
    kinds, todo = [], [LoregError]
    while todo:
        todo += (children := todo.pop().__subclasses__())
        kinds += children
    return [kind for kind in kinds if kind.__module__.startswith("loreg.") and ".plugins." not in kind.__module__]


@pytest.mark.parametrize("kind", every_kind())
def test_an_error_has_a_status_and_comes_back_as_itself(kind: type[LoregError]):
    response = problem_response(kind("it is so", hint="do it"))
    assert 400 <= response.status_code < 600
    assert response.status_code != 500
    assert of_code(json.loads(bytes(response.body))["code"]) is kind


def test_a_conflict_of_any_kind_is_a_conflict():
    assert [problem_response(kind("x")).status_code for kind in (ConflictError, UnderWayError)] == [409, 409]
    assert problem_response(StaleError("x")).status_code == 412


def test_an_error_without_a_status_of_its_own_has_that_of_its_kind():
    class FullError(ConflictError):
        """A kind of conflict that the table does not list."""

    assert problem_response(FullError("x")).status_code == 409
