"""Alembic's environment: one migration at a time, over the connection that loreg hands in."""

import os

from alembic import context

from loreg.catalog.engine import open_engine
from loreg.catalog.schema import metadata


def is_ours(name, kind, parents):
    """Whether a table is described in the schema: SQLAlchemy cannot, what the full text is indexed in."""
    return kind != "table" or not name.startswith("search_texts")


def run(connection):
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True, include_name=is_ours)
    with context.begin_transaction():
        context.run_migrations()


if (given := context.config.attributes.get("connection")) is not None:
    run(given)
else:  # called by the alembic command, to write a new revision
    with open_engine(os.environ["LOREG_DATABASE_URL"]).connect() as own:
        run(own)
        own.commit()
