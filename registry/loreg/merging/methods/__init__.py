"""The merge methods by name. One file per family; a new method is a ``Method`` in one of their lists."""

from __future__ import annotations

from collections.abc import Mapping

from loreg.errors import UsageError
from loreg.merging.method import Method
from loreg.merging.methods import elementwise, exact, factor_average, least_squares, shared_basis, spectral
from loreg.suggestions import suggest

METHODS: Mapping[str, Method] = {
    method.name: method
    for family in (exact, elementwise, shared_basis, spectral, least_squares, factor_average)
    for method in family.METHODS
}


def find_method(name: str) -> Method:
    """Return the method called ``name``. Raises UsageError, naming those that there are."""
    if name not in METHODS:
        raise UsageError(
            f"there is no merge method {name!r}; there are {', '.join(METHODS)}",
            hint="loreg methods",
            suggestion=suggest(name, METHODS),
        )
    return METHODS[name]
