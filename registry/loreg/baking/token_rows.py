"""Replace rows of an embedding that an adapter trained for single tokens (``trainable_token_indices``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loreg.adapters.dtypes import FLOATS
from loreg.adapters.header import Tensor
from loreg.adapters.structure import TokenRows
from loreg.baking.float_codec import Array, read_tensor
from loreg.baking.tensor_updates import BakeSource
from loreg.errors import CheckFailedError, MergeError


@dataclass(frozen=True)
class TokenRowUpdate:
    """Rows of an adapter that replace rows of a tensor: row i of ``tokens`` that of token ``indices[i]``.

    With a ``weight`` other than 1 that share of the difference is added instead.
    """

    source: BakeSource
    tokens: TokenRows
    weight: float

    def apply(self, tile: Array, first: int) -> None:
        """Change the rows of the tile (n, dim) that begins at row ``first``, in place."""
        inside = [(i, row - first) for i, row in enumerate(self.tokens.indices) if 0 <= row - first < len(tile)]
        if not inside:
            return
        trained_rows, tile_rows = map(list, zip(*inside, strict=True))
        new = read_tensor(self.source.structure.weights, self.tokens.tensor)[trained_rows].astype(tile.dtype)
        tile[tile_rows] = new if self.weight == 1 else tile[tile_rows] + self.weight * (new - tile[tile_rows])


def build_token_rows(
    name: str, old: Tensor, trained: Sequence[tuple[BakeSource, TokenRows]]
) -> tuple[TokenRowUpdate, ...]:
    """Return the rows of all adapters that replace rows of the tensor ``name``.

    Raises CheckFailedError where they do not fit it, MergeError where two adapters have a row for one token.
    """
    label_of: dict[int, str] = {}
    for source, tokens in trained:
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
            if index in label_of:
                raise MergeError(
                    f"{label_of[index]} and {source.label} both have a row of {name} for token {index}",
                    hint="bake one of them alone",
                )
            label_of[index] = source.label
    return tuple(
        TokenRowUpdate(source, tokens, source.weight(name.removesuffix(".weight"))) for source, tokens in trained
    )
