"""Search at a million adapters: a task's rows say their version's base, a metric's how good it is"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade():
    with op.batch_alter_table("tasks") as tasks:
        tasks.add_column(sa.Column("base", sa.String(length=1024), server_default="", nullable=False))
    op.execute(
        "UPDATE tasks SET base = (SELECT coalesce(bases.digest, versions.base_hint) FROM versions"
        " LEFT JOIN bases ON bases.id = versions.base_id WHERE versions.id = tasks.version_id)"
    )
    op.create_index(op.f("ix_tasks_task_base_version_id"), "tasks", ["task", "base", "version_id"])
    with op.batch_alter_table("metrics") as metrics:
        metrics.add_column(sa.Column("score", sa.Double(), server_default="0", nullable=False))
    op.execute("UPDATE metrics SET score = CASE WHEN higher_is_better THEN value ELSE -value END")
    op.create_index(op.f("ix_metrics_name_score_version_id"), "metrics", ["name", "score", "version_id"])
    op.create_index(
        op.f("ix_metrics_name_dataset_score_version_id"), "metrics", ["name", "dataset", "score", "version_id"]
    )
    op.drop_index(op.f("ix_versions_created_at_id"), "versions")


def downgrade():
    op.create_index(op.f("ix_versions_created_at_id"), "versions", ["created_at", "id"])
    op.drop_index(op.f("ix_metrics_name_dataset_score_version_id"), "metrics")
    op.drop_index(op.f("ix_metrics_name_score_version_id"), "metrics")
    with op.batch_alter_table("metrics") as metrics:
        metrics.drop_column("score")
    op.drop_index(op.f("ix_tasks_task_base_version_id"), "tasks")
    with op.batch_alter_table("tasks") as tasks:
        tasks.drop_column("base")
