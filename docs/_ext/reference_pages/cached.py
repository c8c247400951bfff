"""The readers of rules and profiles, which the pages ask for the same ones hundreds of times."""

from __future__ import annotations

import functools

from loreg.checking import explain as _explain
from loreg.checking import profile as _profile

explain = functools.cache(_explain.explain)
read_profile = functools.cache(_profile.read_profile)
