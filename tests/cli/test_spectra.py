"""``loreg spectra``, as a person types it."""

from __future__ import annotations

import json

import torch

from deployments import DORA, NEWS, Loreg
from factories import deltas_by_hand


def test_spectra(loreg: Loreg):
    loreg("push", NEWS, "team/news")
    deltas = deltas_by_hand(NEWS)
    header, _, *rows = loreg("spectra", "team/news").stdout.splitlines()
    assert header.split() == ["MODULE", "RANK", "NORM", "LARGEST", "STABLE", "RANK", "90", "%", "99", "%"]
    expected = {}
    for module, delta in deltas.items():
        s = torch.linalg.svdvals(delta)
        expected[module] = f"{s.norm():.4g} {s[0]:.4g} {float(s.square().sum() / s[0] ** 2):.3g}".split()
    assert {row.split()[0]: row.split()[2:5] for row in rows} == expected
    assert loreg("spectra", "team/news", "--format", "quiet").stdout.split() == sorted(deltas)
    document = json.loads(loreg("spectra", "team/news", "--format", "json").stdout)
    assert [module["module"] for module in document["modules"]] == sorted(deltas)


def test_of_what_needs_its_base(loreg: Loreg):
    loreg("push", DORA, "team/dora")
    outcome = loreg("spectra", "team/dora")
    assert (outcome.exit_code, outcome.stdout) == (1, "")
    assert "no singular values are known: team/dora:v1" in outcome.stderr
    assert "loreg show team/dora:v1" in outcome.stderr
