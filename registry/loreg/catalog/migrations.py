"""Bringing a database to the schema of this code. Alembic is the only truth of the schema."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Engine, inspect, text

from loreg.catalog.engine import begun
from loreg.catalog.sqlite import is_read_only
from loreg.errors import ConflictError, UnavailableError

if TYPE_CHECKING:
    from alembic.config import Config

#: The newest revision; a test holds it against the migrations, so that opening a catalog needs no Alembic.
HEAD = "0008"


def current(engine: Engine) -> str | None:
    """The revision of the database; None if it has no schema."""
    with engine.connect() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def ensure(engine: Engine, url: str) -> None:
    """Make sure that the schema is this code's. A SQLite file is upgraded by whoever may write it, a server never.

    Raises UnavailableError if somebody must run ``loreg db upgrade``, ConflictError if the database is newer.
    """
    found = current(engine)
    if found == HEAD:
        return
    if found is not None and found > HEAD:
        raise ConflictError(
            f"the catalog {url} has schema {found}, this loreg knows up to {HEAD}",
            hint="pip install --upgrade loreg",
        )
    if engine.dialect.name != "sqlite" or is_read_only(engine):
        state = f"has schema {found}, this loreg expects {HEAD}" if found else "has no schema yet"
        raise UnavailableError(f"the catalog {url} {state}", hint="loreg db upgrade")
    upgrade(engine)


def upgrade(engine: Engine) -> None:
    """Run every migration that the database lacks, in one transaction; two at once wait for each other."""
    from alembic import command

    config = alembic_config()
    with begun(engine) as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('loreg migrations'))"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def alembic_config() -> Config:
    """Alembic's settings, with the migrations of the wheel or of the checkout."""
    from alembic.config import Config

    package = Path(__file__).parents[1]
    checkout = package.parents[1] / "migrations"  # an editable install may leave a stale copy in site-packages
    config = Config()
    config.set_main_option("script_location", str(checkout if checkout.is_dir() else package / "migrations"))
    config.set_main_option("path_separator", "os")
    return config
