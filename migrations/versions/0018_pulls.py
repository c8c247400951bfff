"""Find the oldest events of pulls, which are removed when they are too old"""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"

PULLS = sa.text("action = 'pull'")


def upgrade():
    # Of a catalog that has no such event the index is empty: making it reads the events once, and writes nothing.
    op.create_index("ix_events_pulls", "events", ["id"], sqlite_where=PULLS, postgresql_where=PULLS)


def downgrade():
    op.drop_index("ix_events_pulls", "events")
