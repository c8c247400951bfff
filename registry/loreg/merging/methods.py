"""The methods of merging. A method turns the factors that the sources have for one module into those of the result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from loreg.algebra.factors import Factors, stack

Method = Callable[[Sequence[Factors], Sequence[float]], Factors]

#: By the name that a recipe gives. ``linear`` is the weighted sum of the *deltas*, exactly; what some tools call
#: linear, adding the A's and the B's on their own, carries cross terms and is another thing.
METHODS: Mapping[str, Method] = {"linear": stack}
