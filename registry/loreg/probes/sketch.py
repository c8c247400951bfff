"""The probe ``sketch``: the few numbers by which an adapter is found again by its content."""

from __future__ import annotations

from loreg.identity.sketch import sketch_adapter
from loreg.probes.adapter import ProbedAdapter

NAME = "sketch"
RELEASE = "1"  # of the probes and the sum: docs/format.md, Sketches


def sketch(adapter: ProbedAdapter) -> dict[str, object]:
    """Return the digest of the tensors' bytes, the norm of all deltas, and the numbers of the sketch as text."""
    sketched = sketch_adapter(adapter.structure)
    return {"data": sketched.data, "norm": sketched.norm, "vector": sketched.vector}
