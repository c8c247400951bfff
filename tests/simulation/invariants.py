"""What must hold in every schedule, looked at with plain SQL and plain reads, sharing no code with what is tested.

After each transaction that changed something, and after each blob that was removed: no reference without its blob, and
none to a blob that a collector has claimed. At the end, after two collections: no orphan, and no garbage that waits.
"""

from __future__ import annotations

from datetime import timedelta

from simulation.catalog import SimulatedCatalog
from simulation.store import SimulatedStore
from simulation.world import World

UPLOADS_LAST = timedelta(days=7)
_REFERENCES = """
SELECT digest, 'files' AS kind FROM files
UNION SELECT digest, 'versions' FROM versions
UNION SELECT digest, 'export_files' FROM export_files
UNION SELECT digest, 'bases' FROM bases
UNION SELECT json_extract(value, '$[1]'), 'drafts' FROM drafts, json_each(drafts.files)
UNION SELECT digest, 'uploads' FROM uploads WHERE received AND created_at >= ?
"""
_CLAIMED = "SELECT digest FROM garbage WHERE claimed_at IS NOT NULL"
_WAITING = "SELECT digest FROM garbage WHERE collected_at IS NULL"


def references(catalog: SimulatedCatalog, world: World) -> dict[str, str]:
    """Return every blob that the catalog refers to, with a table that does."""
    since = world.time - UPLOADS_LAST
    return dict(catalog.ask(_REFERENCES, f"{since:%Y-%m-%d %H:%M:%S.%f}"))


def look(catalog: SimulatedCatalog, store: SimulatedStore, world: World) -> None:
    """See that every reference has its blob, and that none is to a blob that is claimed or was collected."""
    referenced = references(catalog, world)
    for digest in sorted(referenced.keys() - store.objects.keys()):
        world.violate(f"{referenced[digest]} refers to blob {digest[:6]}, which is not in the store")
    for (digest,) in catalog.ask(_CLAIMED):
        if digest in referenced:
            world.violate(f"{referenced[digest]} refers to blob {digest[:6]}, which a collector has claimed")


def look_at_the_end(catalog: SimulatedCatalog, store: SimulatedStore, world: World) -> None:
    """See that nothing is left to collect, after everybody has ended and two collections a grace apart."""
    look(catalog, store, world)
    for digest in sorted(store.objects.keys() - references(catalog, world).keys()):
        world.violate(f"blob {digest[:6]} is an orphan that no collection removes")
    for (digest,) in catalog.ask(_WAITING):
        world.violate(f"blob {digest[:6]} is garbage for ever")
