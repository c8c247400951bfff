"""Bring what upgrades of bases mean for mirrored versions, as it was recorded where they come from."""

from __future__ import annotations

from collections.abc import Container, Iterator

from loreg.entities import BaseModel, BaseUpgrade, NewUpgrade, NewVerdict, RecordedVerdict
from loreg.errors import NotAllowedError, NotFoundError
from loreg.refs import AdapterName, parse_ref
from loreg.workspace.context import Context
from loreg.workspace.mirror_source import MirrorSource, list_verdicts

_BATCH = 100  # verdicts that a registry takes at once


class UpgradeSender:
    """The verdicts of a source on versions of ``adapters``, and a target; what that has recorded itself stays."""

    def __init__(self, source: MirrorSource, target: Context, adapters: Container[AdapterName]) -> None:
        self._source = source
        self._target = target
        self._adapters = adapters

    def upgrades_of(self, base: str) -> Iterator[BaseUpgrade]:
        """Yield the upgrades of a base that the source knows."""
        try:
            upgrades = self._source.base(BaseModel(base)).upgrades
        except (NotAllowedError, NotFoundError):
            return
        yield from (upgrade for upgrade in upgrades if upgrade.old.digest == base)

    def missing(self, upgrade: BaseUpgrade) -> list[RecordedVerdict]:
        """Return the verdicts on mirrored versions that the target does not have."""
        known = {verdict.ref for verdict in list_verdicts(self._target, upgrade)}
        return [
            verdict
            for verdict in self._source.verdicts(upgrade)
            if verdict.ref not in known and parse_ref(verdict.ref).adapter in self._adapters
        ]

    def send(self, upgrade: BaseUpgrade, verdicts: list[RecordedVerdict]) -> str:
        """Record verdicts on an upgrade whose new base the target knows; return what a person should know."""
        figures = upgrade.old.digest, upgrade.new.digest, upgrade.tensors, upgrade.changed, upgrade.change
        recorded = 0
        for start in range(0, len(verdicts), _BATCH):
            batch = tuple(map(_to_new, verdicts[start : start + _BATCH]))
            recorded += self._target.backend.record_upgrade(NewUpgrade(*figures, batch))
        what = f"the upgrade from {upgrade.old.title} to {upgrade.new.title}"
        versions = f"{recorded:,} version{'' if recorded == 1 else 's'}"
        return f"what {what} means for {versions} is recorded as in {self._source.name}"


def _to_new(verdict: RecordedVerdict) -> NewVerdict:
    return NewVerdict(*(getattr(verdict, name) for name in NewVerdict.__struct_fields__))
