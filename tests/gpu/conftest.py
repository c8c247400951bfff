"""Where these tests run: on the GPU, or, to prove the tests themselves, on any device with ``--device``."""

from __future__ import annotations

import pytest
import torch


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default=None, help="run the tests of a GPU on this device, and fail if there is none")


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> str:
    """The device under test. Without one the tests are skipped, unless ``--device`` asked for it."""
    asked: str | None = request.config.getoption("device", None)
    if asked is not None:
        torch.empty(1, device=asked)  # whoever asks for a device means to have it
        return asked
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU here: `make gpu` on a machine that has one")
    return "cuda"


@pytest.fixture
def gpu(device: str) -> torch.device:
    """The device under test where it has to be a GPU."""
    if torch.device(device).type != "cuda":
        pytest.skip(f"{device} has no memory or streams of its own")
    return torch.device(device)
