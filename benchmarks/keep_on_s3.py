"""Verifying and collecting a large registry on PostgreSQL and S3 beside bare loops of the same requests, in one run.

The floor of a verify that reads nothing is a bare loop that asks for each object once, by HEAD, as many at once as
verify sends; half of that loop runs before it and half after it, so that neither has the quieter machine. Each verify
looks at the whole registry, what nothing refers to as well, in a process of its own; its memory is that at the peak.

    python benchmarks/keep_on_s3.py [VERSIONS]

``make bench-keep`` does it with 2,000 versions. With 100,000 it takes half an hour on a quiet machine of two cores.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import boto3
from keep_collecting import compare_gc
from keep_filling import fill
from keep_measuring import Measured, measure

from loreg.storage.blobs import key_of
from services import ACCESS_KEY, SECRET_KEY, S3Server, postgres_server, s3_server

VERSIONS = 2000
_MANY = 10_000  # versions from which on one round takes minutes, and says as much as the median of more
_AT_ONCE = 10  # requests, as verify and gc send
_WHERE = "PostgreSQL and S3 (SeaweedFS)"


class Bucket:
    """The store of the registry, as a program without loreg sees it."""

    def __init__(self, server: S3Server, pool: ThreadPoolExecutor) -> None:
        self._name, self._pool = server.bucket, pool
        self._client = boto3.client("s3", endpoint_url=server.endpoint, region_name="us-east-1")

    def put(self, sha256: str, content: bytes) -> None:
        self._client.put_object(Bucket=self._name, Key=key_of(sha256), Body=content, ChecksumAlgorithm="SHA256")

    def list(self) -> list[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._name, Prefix="sha256/")
        return [item["Key"] for page in pages for item in page.get("Contents", [])]

    def ask(self, keys: list[str]) -> float:
        """Ask for each object once; returns the seconds."""
        began = perf_counter()
        for _ in self._pool.map(lambda key: self._client.head_object(Bucket=self._name, Key=key), keys):
            pass
        return perf_counter() - began

    def clear(self, digests: list[str]) -> None:
        """List all objects, and delete these."""
        self.list()
        for _ in self._pool.map(
            lambda digest: self._client.delete_object(Bucket=self._name, Key=key_of(digest)), digests
        ):
            pass


def compare_verify(settings: dict[str, str], bucket: Bucket, blobs: int, rounds: int) -> None:
    keys = bucket.list()
    floor: list[float] = []
    calls: list[Measured] = []
    for _ in range(rounds):
        before = bucket.ask(keys[: blobs // 2])
        calls.append(measure(settings, "verify"))
        floor.append(before + bucket.ask(keys[blobs // 2 :]))
        counts = calls[-1].counts
        if counts["damage_count"] or counts["orphan_count"] or counts["references"] != blobs or len(keys) < blobs:
            raise SystemExit(f"the registry of this benchmark is broken: {counts}")
    heads, seconds = statistics.median(floor), statistics.median(call.seconds for call in calls)
    peak = max(call.peak for call in calls) / 1024
    above = max(call.peak - call.before for call in calls) / 1024
    print(f"\nlooking at {blobs:,} blobs of {blobs // 2:,} versions on {_WHERE}, without reading")
    for name, value in ((f"bare loop of HEADs, {_AT_ONCE} at once", heads), ("loreg verify", seconds)):
        print(f"  {name:32} {value:8.3f} s  {blobs / value:10,.0f} a second")
    print(f"  memory at the peak: {peak:.0f} MiB, {above:.0f} MiB above the start")
    print(f"  ratio: {seconds / heads:.2f}", flush=True)


def main() -> None:
    versions = int(sys.argv[1]) if len(sys.argv) > 1 else VERSIONS
    rounds = 3 if versions < _MANY else 1
    os.environ |= {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
    with (
        tempfile.TemporaryDirectory(prefix="loreg-bench-") as home,
        postgres_server() as url,
        s3_server("1GiB") as server,
        ThreadPoolExecutor(_AT_ONCE) as pool,
    ):
        bucket = Bucket(server, pool)
        began = perf_counter()
        blobs = fill(url, (b"weights %d" % number for number in range(versions)), bucket.put)
        print(f"filled with {versions:,} versions, {blobs:,} blobs, in {perf_counter() - began:.0f} s", flush=True)
        settings = {"database_url": url, "storage_url": f"s3://{server.bucket}", "storage_endpoint": server.endpoint}
        settings |= {"home": home, "author": "bench"}
        measure(settings, "gc")  # the first run marks the store
        compare_verify(settings, bucket, blobs, rounds)
        compare_gc(_WHERE, settings, blobs, bucket.put, bucket.clear, rounds)


if __name__ == "__main__":
    main()
