"""The documents of a merge as they are stored, by their schemas: recipe, certificate, and the file that has both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal, TypedDict

from msgspec import Meta

from loreg.decoding import decode

MERGE_SCHEMA: Final = "loreg.merge/1"
RECIPE_SCHEMA: Final = "loreg.recipe/2"
CERTIFICATE_SCHEMA: Final = "loreg.certificate/2"
Figure = Annotated[float, Meta(gt=-1e300, lt=1e300)]
Digest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$", max_length=64)]


class SourceDocument(TypedDict):
    """A source of a merge as JSON."""

    label: str
    digest: Digest
    weight: Figure


RecipeDocument = TypedDict(
    "RecipeDocument",
    {
        "schema": Literal["loreg.recipe/2"],
        "method": str,
        "parameters": dict[str, object],
        "sources": Annotated[list[SourceDocument], Meta(min_length=1)],
        "weights_for": dict[str, list[Figure]],
        "lambda": Figure,
        "rank": Mapping[str, float | str],
        "extras": Annotated[int, Meta(ge=0)] | None,
        "initials": list[str],
        "calibration": str,
    },
)


class FiguresDocument(TypedDict):
    """The figures of a certificate, of one module or of all together, as JSON."""

    module: str
    shape: list[int]
    rank_in: int
    rank: int
    norm: Figure
    epsilon: Figure
    retained_energy: Figure
    sigma_next: Figure
    dtype_error: Figure
    retention: list[Figure | None]
    ranks: Mapping[str, int | None]
    complete: bool


class CertificateDocument(TypedDict):
    """The certificate of a merge as it is stored with the version: all modules together, each of them, warnings."""

    schema: Literal["loreg.certificate/2"]
    total: FiguresDocument
    modules: list[FiguresDocument]
    warnings: list[str]


class MergeDocument(TypedDict):
    """The file beside the weights: ``weights_sha256`` says which weights it is about."""

    schema: Literal["loreg.merge/1"]
    weights_sha256: str
    recipe: RecipeDocument
    certificate: CertificateDocument


class MergeHead(TypedDict):
    """What says whether the rest of the file can be read and is about the weights beside it."""

    schema: Literal["loreg.merge/1"]
    weights_sha256: str


class RecipeSchema(TypedDict):
    """The schema of a recipe alone."""

    schema: Literal["loreg.recipe/2"]


class CertificateSchema(TypedDict):
    """The schema of a certificate alone."""

    schema: Literal["loreg.certificate/2"]


class MergeSchemas(TypedDict):
    """The schemas of the two documents in the file."""

    recipe: RecipeSchema
    certificate: CertificateSchema


def decode_recipe(document: object) -> RecipeDocument:
    """Return the recipe in a parsed document, without fields that are not known. Raises ValueError for what it lacks.

    Its schema is looked at before everything else: what a later release changed is not mistaken for a fault.
    """
    decode(document, RecipeSchema)
    recipe = decode(document, RecipeDocument)
    refuse_positions_without_source(recipe)
    return recipe


def refuse_positions_without_source(recipe: RecipeDocument) -> None:
    """Raise ValueError unless ``extras`` and ``weights_for`` are about the sources that the recipe has."""
    count = len(recipe["sources"])
    if recipe["extras"] is not None and recipe["extras"] >= count:
        raise ValueError(f"extras is {recipe['extras']}, expected the position of one of {count} sources")
    for pattern, weights in recipe["weights_for"].items():
        if len(weights) != count:
            raise ValueError(f"weights_for has {len(weights)} weights for {pattern[:80]!r}, expected {count}")
