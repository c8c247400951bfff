"""The first tables"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade():
    op.create_table(
        "adapters",
        sa.Column("id", Id, nullable=False),
        sa.Column("namespace", sa.String(length=96), nullable=False),
        sa.Column("name", sa.String(length=96), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_adapters")),
        sa.UniqueConstraint("namespace", "name", name=op.f("uq_adapters_namespace_name")),
    )

    op.create_index(op.f("ix_adapters_name_namespace"), "adapters", ["name", "namespace"])

    op.create_table(
        "blobs",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_blobs")),
    )
    op.create_table(
        "bases",
        sa.Column("id", Id, nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("tensors", sa.Integer(), nullable=False),
        sa.Column("parameters", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["digest"], ["blobs.digest"], name=op.f("fk_bases_digest")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_bases")),
        sa.UniqueConstraint("digest", name=op.f("uq_bases_digest")),
    )
    op.create_table(
        "base_names",
        sa.Column("name", sa.String(length=512), nullable=False),
        sa.Column("base_id", Id, nullable=False),
        sa.ForeignKeyConstraint(["base_id"], ["bases.id"], name=op.f("fk_base_names_base_id")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_base_names")),
    )

    op.create_index(op.f("ix_base_names_base_id"), "base_names", ["base_id"])

    op.create_table(
        "versions",
        sa.Column("id", Id, nullable=False),
        sa.Column("adapter_id", Id, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("base_id", Id, nullable=True),
        sa.Column("base_hint", sa.String(length=1024), nullable=False),
        sa.Column("variant", sa.String(length=32), nullable=False),
        sa.Column("task_type", sa.String(length=64), nullable=False),
        sa.Column("rank_min", sa.Integer(), nullable=False),
        sa.Column("rank_max", sa.Integer(), nullable=False),
        sa.Column("alpha", sa.Double(), nullable=False),
        sa.Column("parameters", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("dtype", sa.String(length=16), nullable=False),
        sa.Column("author", sa.String(length=128), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("card", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("yanked_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["adapter_id"], ["adapters.id"], name=op.f("fk_versions_adapter_id")),
        sa.ForeignKeyConstraint(["base_id"], ["bases.id"], name=op.f("fk_versions_base_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_versions")),
        sa.UniqueConstraint("adapter_id", "digest", name=op.f("uq_versions_adapter_id_digest")),
        sa.UniqueConstraint("adapter_id", "number", name=op.f("uq_versions_adapter_id_number")),
    )

    op.create_index(op.f("ix_versions_author_id"), "versions", ["author", "id"])
    op.create_index(op.f("ix_versions_base_hint_id"), "versions", ["base_hint", "id"])
    op.create_index(op.f("ix_versions_base_id_id"), "versions", ["base_id", "id"])
    op.create_index(op.f("ix_versions_bytes_id"), "versions", ["bytes", "id"])
    op.create_index(op.f("ix_versions_created_at_id"), "versions", ["created_at", "id"])
    op.create_index(op.f("ix_versions_digest"), "versions", ["digest"])
    op.create_index(op.f("ix_versions_rank_max_id"), "versions", ["rank_max", "id"])
    op.create_index(op.f("ix_versions_variant_id"), "versions", ["variant", "id"])

    op.create_table(
        "alias_moves",
        sa.Column("id", Id, nullable=False),
        sa.Column("adapter_id", Id, nullable=False),
        sa.Column("alias", sa.String(length=96), nullable=False),
        sa.Column("version_id", Id, nullable=True),
        sa.Column("author", sa.String(length=128), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["adapter_id"], ["adapters.id"], name=op.f("fk_alias_moves_adapter_id")),
        sa.ForeignKeyConstraint(["version_id"], ["versions.id"], name=op.f("fk_alias_moves_version_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alias_moves")),
    )

    op.create_index(op.f("ix_alias_moves_adapter_id_id"), "alias_moves", ["adapter_id", "id"])

    op.create_table(
        "aliases",
        sa.Column("adapter_id", Id, nullable=False),
        sa.Column("alias", sa.String(length=96), nullable=False),
        sa.Column("version_id", Id, nullable=False),
        sa.ForeignKeyConstraint(["adapter_id"], ["adapters.id"], name=op.f("fk_aliases_adapter_id")),
        sa.ForeignKeyConstraint(["version_id"], ["versions.id"], name=op.f("fk_aliases_version_id")),
        sa.PrimaryKeyConstraint("adapter_id", "alias", name=op.f("pk_aliases")),
    )

    op.create_index(op.f("ix_aliases_version_id"), "aliases", ["version_id"])

    op.create_table(
        "events",
        sa.Column("id", Id, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("author", sa.String(length=128), nullable=False),
        sa.Column("action", sa.String(length=32), nullable=False),
        sa.Column("adapter_id", Id, nullable=True),
        sa.Column("version_id", Id, nullable=True),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["adapter_id"], ["adapters.id"], name=op.f("fk_events_adapter_id")),
        sa.ForeignKeyConstraint(["version_id"], ["versions.id"], name=op.f("fk_events_version_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
    )

    op.create_index(op.f("ix_events_adapter_id_id"), "events", ["adapter_id", "id"])

    op.create_table(
        "files",
        sa.Column("version_id", Id, nullable=False),
        sa.Column("path", sa.String(length=1024), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["digest"], ["blobs.digest"], name=op.f("fk_files_digest")),
        sa.ForeignKeyConstraint(["version_id"], ["versions.id"], name=op.f("fk_files_version_id")),
        sa.PrimaryKeyConstraint("version_id", "path", name=op.f("pk_files")),
    )

    op.create_index(op.f("ix_files_digest"), "files", ["digest"])

    op.create_table(
        "labels",
        sa.Column("version_id", Id, nullable=False),
        sa.Column("key", sa.String(length=128), nullable=False),
        sa.Column("value", sa.String(length=256), nullable=False),
        sa.ForeignKeyConstraint(["version_id"], ["versions.id"], name=op.f("fk_labels_version_id")),
        sa.PrimaryKeyConstraint("version_id", "key", name=op.f("pk_labels")),
    )

    op.create_index(op.f("ix_labels_key_value_version_id"), "labels", ["key", "value", "version_id"])

    op.create_table(
        "merges",
        sa.Column("version_id", Id, nullable=False),
        sa.Column("recipe", sa.JSON(), nullable=False),
        sa.Column("certificate", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["version_id"], ["versions.id"], name=op.f("fk_merges_version_id")),
        sa.PrimaryKeyConstraint("version_id", name=op.f("pk_merges")),
    )
    op.create_table(
        "metrics",
        sa.Column("version_id", Id, nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("dataset", sa.String(length=256), nullable=False),
        sa.Column("split", sa.String(length=128), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.Column("higher_is_better", sa.Boolean(), nullable=False),
        sa.Column("author", sa.String(length=128), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["version_id"], ["versions.id"], name=op.f("fk_metrics_version_id")),
        sa.PrimaryKeyConstraint("version_id", "name", "dataset", "split", name=op.f("pk_metrics")),
    )

    op.create_index(
        op.f("ix_metrics_name_dataset_value_version_id"),
        "metrics",
        ["name", "dataset", "value", "version_id"],
    )
    op.create_index(op.f("ix_metrics_name_value_version_id"), "metrics", ["name", "value", "version_id"])

    op.create_table(
        "module_types",
        sa.Column("version_id", Id, nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("rank_min", sa.Integer(), nullable=False),
        sa.Column("rank_max", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["version_id"], ["versions.id"], name=op.f("fk_module_types_version_id")),
        sa.PrimaryKeyConstraint("version_id", "name", name=op.f("pk_module_types")),
    )

    op.create_index(op.f("ix_module_types_name_version_id"), "module_types", ["name", "version_id"])

    op.create_table(
        "tasks",
        sa.Column("version_id", Id, nullable=False),
        sa.Column("task", sa.String(length=128), nullable=False),
        sa.ForeignKeyConstraint(["version_id"], ["versions.id"], name=op.f("fk_tasks_version_id")),
        sa.PrimaryKeyConstraint("version_id", "task", name=op.f("pk_tasks")),
    )

    op.create_index(op.f("ix_tasks_task_version_id"), "tasks", ["task", "version_id"])

    op.create_table(
        "lineage",
        sa.Column("child_id", Id, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("parent_digest", sa.String(length=64), nullable=False),
        sa.Column("parent_label", sa.String(length=1024), nullable=False),
        sa.Column("weight", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["child_id"], ["merges.version_id"], name=op.f("fk_lineage_child_id")),
        sa.PrimaryKeyConstraint("child_id", "position", name=op.f("pk_lineage")),
    )

    op.create_index(op.f("ix_lineage_parent_digest"), "lineage", ["parent_digest"])


def downgrade():
    for table in (
        "lineage",
        "tasks",
        "module_types",
        "metrics",
        "merges",
        "labels",
        "files",
        "events",
        "aliases",
        "alias_moves",
        "versions",
        "base_names",
        "bases",
        "blobs",
        "adapters",
    ):
        op.drop_table(table)
