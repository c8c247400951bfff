"""The gallery shows what its programs draw, in the same order, and every picture is wide enough to be read."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gallery")
    sys.path.insert(0, str(ROOT / "docs" / "_ext"))
    try:
        importlib.import_module("gallery").draw_gallery(folder)
    finally:
        sys.path.pop(0)
    return folder


def test_each_program_is_followed_by_its_picture(pictures: Path):
    text = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")
    saved = re.findall(r'savefig\("(.+?)"\)', text)
    shown = re.findall(r"!\[[^\]]+\]\(gallery/(.+?)\)", text)
    assert saved == shown
    assert {path.name for path in pictures.iterdir()} == set(shown)


def test_pictures_are_as_wide_as_a_page_and_not_blank(pictures: Path):
    for path in pictures.iterdir():
        with Image.open(path) as image:
            assert image.width == 800
            assert 200 < image.height <= 1000
            pixels = np.asarray(image.convert("L"), dtype=float)
        assert pixels.std() > 10
        assert pixels[[0, -1]].min() > 200  # nothing is cut off at the upper and the lower edge
