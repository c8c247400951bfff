"""The servers that are attacked: with a private namespace, and a token for each role."""

from __future__ import annotations

import pytest

from server.conftest import Guarded, guarded, guarded_folder

__all__ = ["either", "guarded", "guarded_folder"]


@pytest.fixture(params=["guarded", "guarded_folder"])
def either(request: pytest.FixtureRequest) -> Guarded:
    """The server on PostgreSQL and S3, and the one on SQLite and a folder."""
    return request.getfixturevalue(request.param)
