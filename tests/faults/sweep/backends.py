"""The two places of a registry, each with states that can be copied: what was before a kill is had again at once."""

from __future__ import annotations

import itertools
import os
import shutil
from pathlib import Path
from typing import Any, Protocol

from deployments import Deployment
from faults.checker import s3_client
from services import S3Server


class Backend(Protocol):
    """Makes registries, all of them fresh; ``room`` is a folder that a registry may lie in."""

    name: str
    title: str

    def empty(self, room: Path) -> Deployment:
        """A registry with nothing in it, not even a schema."""
        ...

    def copy(self, deployment: Deployment, room: Path) -> Deployment:
        """Another one with the same content, which nobody uses meanwhile."""
        ...

    def drop(self, deployment: Deployment) -> None:
        """Remove one."""
        ...

    def an_hour_passes(self, deployment: Deployment) -> None:
        """Let every job look an hour older, and every claim of a collector."""
        ...

    def replace_blob(self, deployment: Deployment, sha256: str, content: bytes | None) -> None:
        """Let something else lie under the name of a blob, or nothing."""
        ...


class SqliteAndFolder:
    """A file and a folder in the room."""

    name = "sqlite"
    title = "SQLite + folder"

    def empty(self, room: Path) -> Deployment:
        (room / "registry").mkdir(parents=True)
        return _in(room)

    def copy(self, deployment: Deployment, room: Path) -> Deployment:
        shutil.copytree(Path(deployment.storage_url).parent, room / "registry")
        return _in(room)

    def drop(self, deployment: Deployment) -> None:
        """It goes with its room."""

    def an_hour_passes(self, deployment: Deployment) -> None:
        import contextlib
        import sqlite3

        with contextlib.closing(sqlite3.connect(deployment.database_url.removeprefix("sqlite:///"))) as connection:
            times = [row[1] for row in connection.execute("PRAGMA table_info(jobs)") if row[2] == "DATETIME"]
            earlier = ", ".join(f"{name} = strftime('%Y-%m-%d %H:%M:%f000', {name}, '-1 hour')" for name in times)
            connection.execute(f"UPDATE jobs SET {earlier}")
            claimed = "strftime('%Y-%m-%d %H:%M:%f000', claimed_at, '-1 hour')"
            connection.execute(f"UPDATE garbage SET claimed_at = {claimed}")
            connection.commit()

    def replace_blob(self, deployment: Deployment, sha256: str, content: bytes | None) -> None:
        path = Path(deployment.storage_url, "sha256", sha256[:2], sha256)
        path.unlink()
        if content is not None:
            path.write_bytes(content)


def _in(room: Path) -> Deployment:
    return Deployment(f"sqlite:///{room}/registry/catalog.db", f"{room}/registry/store")


class PostgresAndS3:
    """A database and a prefix of their own for each registry, on servers that all of them share."""

    name = "postgres"
    title = "PostgreSQL + S3"

    def __init__(self, postgres: str, s3: S3Server) -> None:
        self._host = postgres.rsplit("/", 1)[0]
        self._s3 = s3
        self._count = itertools.count()

    def empty(self, room: Path) -> Deployment:
        return self._made("template0")

    def copy(self, deployment: Deployment, room: Path) -> Deployment:
        made = self._made(_database(deployment))
        client, source, target = self._client, f"{_prefix(deployment)}/", f"{_prefix(made)}/"
        for item in self._items(source):
            key = target + item["Key"].removeprefix(source)
            client.copy_object(
                Bucket=self._s3.bucket, Key=key, CopySource={"Bucket": self._s3.bucket, "Key": item["Key"]}
            )
        return made

    def drop(self, deployment: Deployment) -> None:
        self._ask(f"DROP DATABASE {_database(deployment)} WITH (FORCE)")
        for item in self._items(f"{_prefix(deployment)}/"):
            self._client.delete_object(Bucket=self._s3.bucket, Key=item["Key"])

    def an_hour_passes(self, deployment: Deployment) -> None:
        import psycopg

        query = (
            "SELECT column_name FROM information_schema.columns WHERE table_name = 'jobs' AND data_type LIKE 'time%'"
        )
        with psycopg.connect(deployment.database_url) as connection:
            times = [name for (name,) in connection.execute(query)]
            connection.execute("UPDATE jobs SET " + ", ".join(f"{name} = {name} - interval '1 hour'" for name in times))
            connection.execute("UPDATE garbage SET claimed_at = claimed_at - interval '1 hour'")

    def replace_blob(self, deployment: Deployment, sha256: str, content: bytes | None) -> None:
        key = {"Bucket": self._s3.bucket, "Key": f"{_prefix(deployment)}/sha256/{sha256[:2]}/{sha256}"}
        self._client.delete_object(**key)
        if content is not None:
            self._client.put_object(**key, Body=content)

    @property
    def _client(self) -> Any:
        return s3_client(self._s3.endpoint)

    def _items(self, prefix: str) -> list[dict[str, Any]]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._s3.bucket, Prefix=prefix)
        return [item for page in pages for item in page.get("Contents", [])]

    def _made(self, template: str) -> Deployment:
        name = f"sweep_{os.getpid()}_{next(self._count)}"
        self._ask(f"CREATE DATABASE {name} TEMPLATE {template}")
        return Deployment(f"{self._host}/{name}", f"s3://{self._s3.bucket}/{name}", self._s3.endpoint)

    def _ask(self, statement: str) -> None:
        import psycopg

        with psycopg.connect(f"{self._host}/template1", autocommit=True) as connection:
            connection.execute(statement)


def _database(deployment: Deployment) -> str:
    return deployment.database_url.rpartition("/")[2]


def _prefix(deployment: Deployment) -> str:
    return deployment.storage_url.removeprefix("s3://").partition("/")[2]
