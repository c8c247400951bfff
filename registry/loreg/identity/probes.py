"""The random vectors that deltas are probed with: the same on every machine, for ever (docs/format.md, Sketches).

Each module has its own, for its outputs and for its inputs. Their entries are ±1, taken from the bits of SHAKE-128. A
long side is folded first: the same 256 signs are used again and again, each time with a sign of the place before it.

Suffixes: k probes, f places after folding, n places of a side, r rank.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

#: How many probes a sketch has.
PROBES = 256
_FOLD = 256  # places that have signs of their own
_DOMAIN = "loreg.sketch/1"
#: The eight signs of each byte, the lowest bit first: a set bit is −1.
_SIGNS = 1.0 - 2.0 * ((np.arange(256)[:, None] >> np.arange(8)) & 1)


def project(factor_nr: Array, module: str, side: str, matrix: int = 0) -> Array:
    """Return the products (k, r) of the probes of one side of a module with a factor (n, r), in float64.

    ``side`` is ``out`` or ``in``; ``matrix`` counts the matrices of a module with experts.
    """
    places = factor_nr.shape[0]
    width = min(places, _FOLD)
    place_bytes, probe_bytes = -(-places // 8), PROBES * -(-width // 8)
    key = "\0".join((_DOMAIN, module, str(matrix), side, str(places)))
    stream = np.frombuffer(hashlib.shake_128(key.encode()).digest(place_bytes + probe_bytes), np.uint8)
    signs_n = _SIGNS[stream[:place_bytes]].reshape(-1)[:places]
    signs_kf = _SIGNS[stream[place_bytes:]].reshape(PROBES, -1)[:, :width]
    signed_nr = factor_nr * signs_n[:, None]
    if places > width:
        folds = -(-places // width)
        padded = np.zeros((folds * width, factor_nr.shape[1]))
        padded[:places] = signed_nr
        signed_nr = padded.reshape(folds, width, -1).sum(0)
    products: Array = signs_kf @ signed_nr
    return products
