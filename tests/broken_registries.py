"""The broken registries of tests/data/broken-registries, put where a test works: SQLite and folder, or others."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import shutil
import sqlite3
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
from sqlalchemy import Integer, MetaData, create_engine, delete, insert, select, text

from deployments import Deployment
from loreg.catalog import Catalog
from loreg.catalog.engine import open_engine
from loreg.catalog.schema import metadata

FOLDER = Path(__file__).parent / "data" / "broken-registries"
NAMES = sorted(path.parent.name for path in FOLDER.glob("*/verdict.json"))
ADAPTERS = FOLDER / "adapters"


def verdict_on(name: str) -> dict[str, Any]:
    """What was done to the registry, and so what must be said of it."""
    return dict(json.loads((FOLDER / name / "verdict.json").read_text()))


def install(name: str, deployment: Deployment, scratch: Path) -> None:
    """Put the catalog and the store of a broken registry where the deployment has its own, both still empty."""
    own = FOLDER / name / "catalog.sql"
    dump = own if own.exists() else FOLDER / "catalog.sql"
    sqlite = scratch / "dumped.db"
    if deployment.database_url.startswith("sqlite:///"):
        sqlite = Path(deployment.database_url.removeprefix("sqlite:///"))
    with contextlib.closing(sqlite3.connect(sqlite)) as connection:
        connection.executescript(dump.read_text())
    Catalog(f"sqlite:///{sqlite}").upgrade()
    if not deployment.database_url.startswith("sqlite:///"):
        copy_rows(f"sqlite:///{sqlite}", deployment.database_url, metadata, metadata)
    store = FOLDER / name / "store"
    if deployment.storage_endpoint:
        _send(store, deployment)
    else:
        shutil.copytree(store, deployment.storage_url)


def copy_rows(source_url: str, target_url: str, source_tables: MetaData, target_tables: MetaData) -> None:
    """Copy every row of a catalog in SQLite to one in PostgreSQL of the same revision, and go on counting ids there."""
    source, target = create_engine(source_url), open_engine(target_url)
    with source.connect() as reader, target.begin() as writer:
        for table in reversed(target_tables.sorted_tables):
            writer.execute(delete(table))  # a new catalog has an id of its own
        for table in target_tables.sorted_tables:
            rows = [_in_utc(row) for row in reader.execute(select(source_tables.tables[table.name])).mappings()]
            if rows:
                writer.execute(insert(table), rows)
            if "id" in table.c and isinstance(table.c["id"].type, Integer):
                sequence = f"pg_get_serial_sequence('{table.name}', 'id')"
                writer.execute(text(f"SELECT setval({sequence}, (SELECT coalesce(max(id), 0) + 1 FROM {table.name}))"))
    source.dispose()
    target.dispose()


def _in_utc(row: Mapping[str, Any]) -> dict[str, Any]:
    """Say of times without a zone, as SQLite has them, that they are UTC."""
    return {
        name: value.replace(tzinfo=UTC) if isinstance(value, datetime) and value.tzinfo is None else value
        for name, value in row.items()
    }


def _send(store: Path, deployment: Deployment) -> None:
    """Send the files as loreg does, but what is damaged as another program would: without a SHA-256.

    What an interrupted put left is there an upload in parts that was begun.
    """
    client = boto3.client("s3", endpoint_url=deployment.storage_endpoint, region_name="us-east-1")
    bucket, _, prefix = deployment.storage_url.removeprefix("s3://").partition("/")
    for path in sorted(store.rglob("*")):
        if not path.is_file():
            continue
        content = path.read_bytes()
        key = f"{prefix}/{path.relative_to(store).as_posix()}"
        digest = hashlib.sha256(content)
        if path.name.startswith(".put-"):
            client.create_multipart_upload(Bucket=bucket, Key=f"{prefix}/sha256/{path.parent.name}/{'0' * 64}")
        elif digest.hexdigest() == path.name:
            checksum = base64.b64encode(digest.digest()).decode()
            client.put_object(Bucket=bucket, Key=key, Body=content, ChecksumSHA256=checksum)
        else:
            client.put_object(Bucket=bucket, Key=key, Body=content)
