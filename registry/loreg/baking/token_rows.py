"""Rows of an embedding that an adapter trained for single tokens (``trainable_token_indices``)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from loreg.adapters.header import Tensor
from loreg.adapters.structure import TokenRows
from loreg.baking.dtypes import FLOATS, Array, compute_dtype, read_tensor
from loreg.baking.tensor_updates import BakeSource
from loreg.errors import CheckFailedError, MergeError


@dataclass(frozen=True)
class TokenRowUpdate:
    """Rows that take the place of those of a tensor: row i of ``tokens`` that of token ``indices[i]``.

    With a ``weight`` other than 1 only so much of the difference is taken.
    """

    source: BakeSource
    tokens: TokenRows
    weight: float

    def apply(self, tile: Array, first: int) -> None:
        """Change the rows of the tile (n, dim) that begins at row ``first``, in place."""
        inside = [(i, row - first) for i, row in enumerate(self.tokens.indices) if 0 <= row - first < len(tile)]
        if not inside:
            return
        ours, theirs = (list(some) for some in zip(*inside, strict=True))
        new = self._numbers()[ours].astype(tile.dtype)
        tile[theirs] = new if self.weight == 1 else tile[theirs] + self.weight * (new - tile[theirs])

    def _numbers(self) -> Array:
        tensor = self.tokens.tensor
        descriptor = os.open(self.source.structure.weights, os.O_RDONLY)
        try:
            return read_tensor(descriptor, tensor, compute_dtype(tensor.dtype)).reshape(tensor.shape)
        finally:
            os.close(descriptor)


def token_rows(name: str, old: Tensor, some: Sequence[tuple[BakeSource, TokenRows]]) -> tuple[TokenRowUpdate, ...]:
    """The rows of all adapters that fall on the tensor ``name``.

    Raises CheckFailedError where they do not fit it, MergeError where two adapters have a row for one token.
    """
    seen: dict[int, str] = {}
    for source, tokens in some:
        shape = tokens.tensor.shape
        if len(shape) != 2 or shape != (len(tokens.indices), *old.shape[1:]) or tokens.tensor.dtype not in FLOATS:
            raise CheckFailedError(
                f"base mismatch: {source.label} has rows {shape} for {len(tokens.indices)} tokens of {name}, which is "
                f"{old.shape} in this base",
                hint="--base names the model that the adapter was trained on",
            )
        for index in tokens.indices:
            if not 0 <= index < old.shape[0]:
                raise CheckFailedError(
                    f"base mismatch: {source.label} has a row for token {index}, {name} has {old.shape[0]} rows",
                    hint="--base names the model that the adapter was trained on",
                )
            if index in seen:
                raise MergeError(
                    f"{seen[index]} and {source.label} both have a row of {name} for token {index}",
                    hint="bake one of them alone",
                )
            seen[index] = source.label
    return tuple(TokenRowUpdate(source, tokens, source.weight(name.removesuffix(".weight"))) for source, tokens in some)
