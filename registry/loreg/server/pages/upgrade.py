"""The page ``/bases/OLD/upgrades/NEW``: what the upgrade of a base means for its adapters, as it was recorded."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from loreg.entities import RecordedVerdicts, UpgradeVerdict
from loreg.parsing import parse_verdict
from loreg.server.pages.commands import command
from loreg.server.pages.paths import UPGRADE, upgrade_path, with_query
from loreg.server.pages.visitor import PageRoute, get_visitor, page
from loreg.value import Value

routes = APIRouter(include_in_schema=False, route_class=PageRoute)
_PAGE, _MAX_CURSOR = 50, 4096
_BADGES = {UpgradeVerdict.EXACT: "good", UpgradeVerdict.COPY: "odd", UpgradeVerdict.RETRAIN: "bad"}


class UpgradeView(Value, frozen=True):
    """What the page shows: verdicts of one kind, ``shown``, or of all.

    ``kinds`` are the kinds that there are with their badge, number and path.
    """

    verdicts: RecordedVerdicts
    shown: UpgradeVerdict | None
    kinds: tuple[tuple[UpgradeVerdict, str, int, str], ...]
    all_path: str
    badges: dict[UpgradeVerdict, str]
    has_losses: bool
    next_path: str


@routes.api_route(UPGRADE, methods=["GET", "HEAD"])
async def upgrade(request: Request, digest: str, new: str) -> Response:
    """Show the verdicts on the versions that the visitor may read, those that move exactly first."""
    visitor = await get_visitor(request)
    query = request.query_params
    shown = parse_verdict(query["verdict"]) if query.get("verdict") else None
    cursor = query.get("cursor", "")[:_MAX_CURSOR] or None
    verdicts = await visitor.backend.upgrade_verdicts(digest, new, shown, _PAGE, cursor)
    path, own = upgrade_path(digest, new), [("verdict", shown or "")]
    view = UpgradeView(
        verdicts=verdicts,
        shown=shown,
        kinds=tuple(
            (kind, _BADGES.get(kind, ""), count, with_query(path, [("verdict", kind)]))
            for kind, count in verdicts.counts.items()
        ),
        all_path=path,
        badges=_BADGES,
        has_losses=any(row.losses for row in verdicts),
        next_path=with_query(path, [*own, ("cursor", verdicts.cursor)]) if verdicts.cursor else "",
    )
    return page(
        visitor,
        "upgrade.html",
        title=f"Upgrade to {verdicts.upgrade.new.title}",
        view=view,
        command=command("base", "upgrade", "./old", "./new"),
        api=with_query("/api/v1/base-upgrades", [("old", digest), ("new", new), *own]),
        document=verdicts,
    )
