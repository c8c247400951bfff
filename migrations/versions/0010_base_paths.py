"""What everybody may see of a version's base stands apart from its path on the machine of the author"""

import re

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

VERSIONS = sa.table("versions", sa.column("id"), sa.column("base_id"), sa.column("base_hint"), sa.column("base_path"))
TASKS = sa.table("tasks", sa.column("version_id"), sa.column("base"))
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def is_hub_name(text):
    return len(text) <= 200 and HUB_NAME.fullmatch(text) is not None and ".." not in text


def public_name(path):
    parts = [part for part in re.split(r"[/\\]+", path) if part]
    for part in parts:
        if part.startswith("models--") and is_hub_name(part.removeprefix("models--").replace("--", "/")):
            return part.removeprefix("models--").replace("--", "/")
    last = parts[-1].strip() if parts else ""
    is_name = last not in (".", "..") and not last.startswith("~") and not re.fullmatch("[A-Za-z]:", last)
    return last if is_name else ""


def upgrade():
    # Not a batch: SQLite adds a column with a default without copying a table that others refer to.
    op.add_column("versions", sa.Column("base_path", sa.String(length=1024), server_default="", nullable=False))
    connection = op.get_bind()
    hints = connection.execute(sa.select(VERSIONS.c.base_hint).distinct()).scalars().all()
    paths = [{"path": hint, "name": public_name(hint)} for hint in hints if hint and not is_hub_name(hint)]
    if not paths:
        return
    has_path = VERSIONS.c.base_hint == sa.bindparam("path")
    with_path = sa.select(VERSIONS.c.id).where(has_path, VERSIONS.c.base_id.is_(None))
    of_tasks = sa.update(TASKS).where(TASKS.c.version_id.in_(with_path)).values(base=sa.bindparam("name"))
    of_versions = sa.update(VERSIONS).where(has_path)
    connection.execute(of_tasks, paths)
    connection.execute(of_versions.values(base_path=sa.bindparam("path"), base_hint=sa.bindparam("name")), paths)


def downgrade():
    versions = sa.update(VERSIONS).where(VERSIONS.c.base_path != "")
    of_version = sa.select(VERSIONS.c.base_path).where(VERSIONS.c.id == TASKS.c.version_id).scalar_subquery()
    with_path = sa.select(VERSIONS.c.id).where(VERSIONS.c.base_path != "", VERSIONS.c.base_id.is_(None))
    op.execute(sa.update(TASKS).where(TASKS.c.version_id.in_(with_path)).values(base=of_version))
    op.execute(versions.values(base_hint=VERSIONS.c.base_path))
    op.drop_column("versions", "base_path")
