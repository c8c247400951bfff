"""How many threads the linear algebra of NumPy uses: for matrices as small as factors, more only wait."""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager

from threadpoolctl import ThreadpoolController


def one_blas_thread() -> AbstractContextManager[object]:
    """Let the linear algebra of NumPy use one thread until the context ends."""
    limit: AbstractContextManager[object] = _libraries().limit(limits=1, user_api="blas")
    return limit


@functools.cache
def _libraries() -> ThreadpoolController:
    """Return the libraries that this process has loaded: to look for them takes as long as a small adapter."""
    import numpy as np  # noqa: F401

    return ThreadpoolController()
