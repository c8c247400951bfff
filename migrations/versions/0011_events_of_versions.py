"""Find the events and alias moves of a version: deleting one looks for both, in all of them without these indexes"""

from alembic import op

revision = "0011"
down_revision = "0010"

TABLES = ("events", "alias_moves")


def upgrade():
    for table in TABLES:
        op.create_index(op.f(f"ix_{table}_version_id"), table, ["version_id"])


def downgrade():
    for table in TABLES:
        op.drop_index(op.f(f"ix_{table}_version_id"), table_name=table)
