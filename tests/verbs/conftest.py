"""The server that asks for tokens, as the server's own tests have it, and a registry that is not empty."""

from collections.abc import Iterator

import pytest

from deployments import SCIENCE, Deployment
from loreg import connect
from loreg.registry import Registry
from server.conftest import guarded

__all__ = ["guarded"]


def with_science(deployment: Deployment) -> Iterator[Registry]:
    """A registry with one version, ``team/science``."""
    with connect(**deployment.settings, author="ada") as opened:
        opened.push(SCIENCE, "team/science")
        yield opened


@pytest.fixture
def science_registry(local_deployment: Deployment) -> Iterator[Registry]:
    """A registry with one version, whose catalog and store are reached themselves."""
    yield from with_science(local_deployment)
