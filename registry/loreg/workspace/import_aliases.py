"""Decide which aliases an import sets: those that nobody has set, or that stand where an import put them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from loreg.entities import AliasMove, Event, EventFilter
from loreg.errors import NotAllowedError, NotFoundError
from loreg.refs import AdapterName, Ref
from loreg.workspace.context import Context

#: What the event of an alias says that an import set.
BY_IMPORT = "import"
_PAGE = 200  # events in one answer


@dataclass
class AdapterAliases:
    """Where the aliases of an adapter stand, asked for once for all that is planned of it."""

    context: Context
    adapter: AdapterName
    newest: int
    _moves: dict[str, AliasMove] | None = None
    _by_import: dict[str, bool] = field(default_factory=dict)

    def plan_moves(self, aliases: Sequence[str], version: Ref, notes: list[str]) -> dict[str, int]:
        """Return those of ``aliases`` that an import sets to the version, and what each means before, 0 for nothing.

        A version of another adapter gets none. One that somebody set stays where it is; a line on it goes to ``notes``.
        """
        moves = {}
        for alias in aliases if version.adapter == self.adapter else ():
            before = self._standing(alias)
            if before in (0, version.number) or self._is_by_import(alias):
                moves[alias] = before
            else:
                notes.append(self._describe_kept(alias, version))
        return moves

    def _standing(self, alias: str) -> int:
        move = self._last_moves().get(alias)
        return (move.number or 0) if move is not None else 0

    def _is_by_import(self, alias: str) -> bool:
        if alias not in self._by_import:
            event = self._find_last_tag(alias)
            self._by_import[alias] = event is not None and event.detail.get("reason") == BY_IMPORT
        return self._by_import[alias]

    def _describe_kept(self, alias: str, meant: Ref) -> str:
        move = self._last_moves()[alias]
        since = f"set by {move.author} on {move.at:%Y-%m-%d}"
        return (
            f"{self.adapter}:{alias} stays v{move.number}, as {since}, the run says v{meant.number}: "
            f"loreg tag {meant} {alias}"
        )

    def _last_moves(self) -> dict[str, AliasMove]:
        if self._moves is None:
            newest_first = self._read_moves()
            self._moves = {move.alias: move for move in reversed(newest_first)}
        return self._moves

    def _read_moves(self) -> tuple[AliasMove, ...]:
        if not self.newest:
            return ()
        try:
            return self.context.backend.show(Ref(self.adapter, number=self.newest)).alias_moves
        except NotFoundError:  # it was deleted meanwhile: what is set then expects nothing, and is refused
            return ()

    def _find_last_tag(self, alias: str) -> Event | None:
        """Return the event of the last move of ``alias``; None if it cannot be read."""
        cursor: str | None = None
        while True:
            try:
                page = self.context.backend.events(_PAGE, cursor, EventFilter(self.adapter, actions=("tag",)))
            except (NotAllowedError, NotFoundError):
                return None
            for event in page.items:
                if event.detail.get("alias") == alias:
                    return event if event.ref == f"{self.adapter}:v{self._standing(alias)}" else None
            cursor = page.cursor
            if cursor is None:
                return None
