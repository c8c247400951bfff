"""What vLLM's middleware serves while the registry does not answer."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from loreg.entities import Progress, Version
from loreg.plugins import followed_refs, preparations
from loreg.plugins.served_versions import ServedVersions
from loreg.registry import Registry
from vllm_requests import Line, ask, run, version_of
from vllm_stub import LoRAResolverRegistry, Vllm


class TestARegistryThatDoesNotAnswer:
    def test_leaves_each_name_the_version_that_it_meant_last(
        self, resolvers: LoRAResolverRegistry, news: Registry, line: Line
    ):
        async def test(vllm: Vllm, client: httpx.AsyncClient) -> None:
            assert await version_of(client, "team/news:prod") == "v1"
            news.tag("team/news:v2", "prod")
            assert await version_of(client, "team/news:prod") == "v2"
            line.is_cut = True
            for _ in range(3):
                assert await version_of(client, "team/news:prod") == "v2"
            news.tag("team/news:v1", "prod")
            line.is_cut = False
            assert await version_of(client, "team/news:prod") == "v1", "a later move back is the registry's word"

        run(resolvers, test)

    def test_leaves_it_also_after_a_start(self, resolvers: LoRAResolverRegistry, news: Registry, line: Line):
        async def before(vllm: Vllm, client: httpx.AsyncClient) -> None:
            for number in ("v1", "v2"):
                news.tag(f"team/news:{number}", "prod")
                assert await version_of(client, "team/news:prod") == number

        async def after(vllm: Vllm, client: httpx.AsyncClient) -> None:
            assert await version_of(client, "team/news:prod") == "v2"

        run(resolvers, before)
        line.is_cut = True
        run(resolvers, after)

    def test_leaves_no_older_version_than_one_that_was_served(
        self, resolvers: LoRAResolverRegistry, news: Registry, line: Line, monkeypatch: pytest.MonkeyPatch
    ):
        """Neither where the older one was so long in coming that the newer one was there first."""
        prepare, came = ServedVersions.prepare, threading.Event()

        def prepare_slowly(versions: ServedVersions, version: Version, progress: Progress) -> Path:
            if version.number == 1:
                came.wait(60)
            return prepare(versions, version, progress)

        monkeypatch.setattr(ServedVersions, "prepare", prepare_slowly)

        async def test(vllm: Vllm, client: httpx.AsyncClient) -> None:
            before = asyncio.create_task(version_of(client, "team/news:prod"))
            await line.hear()
            news.tag("team/news:v2", "prod")
            assert await version_of(client, "team/news:prod") == "v2"
            came.set()
            assert await before == "v1"
            line.is_cut = True
            assert await version_of(client, "team/news:prod") == "v2"

        run(resolvers, test)

    def test_in_the_middle_of_a_download_leaves_the_version_before(
        self, resolvers: LoRAResolverRegistry, news: Registry, monkeypatch: pytest.MonkeyPatch
    ):
        pull, came = Registry.pull, threading.Event()

        def pull_when_it_comes(registry: Registry, *arguments: Any, **options: Any) -> Any:
            came.wait(60)
            return pull(registry, *arguments, **options)

        async def test(vllm: Vllm, client: httpx.AsyncClient) -> None:
            assert await version_of(client, "team/news:prod") == "v1"
            monkeypatch.setattr(preparations, "MAX_STALL", 0.01)
            monkeypatch.setattr(Registry, "pull", pull_when_it_comes)
            news.tag("team/news:v2", "prod")
            for _ in range(2):
                assert await version_of(client, "team/news:prod") == "v1"
            monkeypatch.setattr(preparations, "MAX_STALL", 3600.0)
            came.set()
            assert await version_of(client, "team/news:prod") == "v2"

        run(resolvers, test)

    @pytest.mark.parametrize("spoil", ["yank", "delete"])
    def test_brings_nothing_back_that_it_has_taken_back(
        self, resolvers: LoRAResolverRegistry, news: Registry, line: Line, spoil: str
    ):
        async def before(vllm: Vllm, client: httpx.AsyncClient) -> None:
            assert await version_of(client, "team/news:prod") == "v1"
            news.untag("team/news", "prod") if spoil == "delete" else news.yank("team/news:v1")
            assert (await ask(client, "team/news:prod")).status_code == 404
            line.is_cut = True
            await after(vllm, client)

        async def after(vllm: Vllm, client: httpx.AsyncClient) -> None:
            assert (await ask(client, "team/news:prod")).status_code == 503

        run(resolvers, before)
        run(resolvers, after)

    def test_is_told_without_its_address_where_there_is_nothing_to_serve(
        self, resolvers: LoRAResolverRegistry, news: Registry, line: Line
    ):
        line.is_cut = True

        async def test(vllm: Vllm, client: httpx.AsyncClient) -> None:
            answer = await ask(client, "team/news:prod")
            assert answer.status_code == 503
            assert answer.headers["retry-after"] == "1"
            message = answer.json()["error"]["message"]
            assert message.startswith("team/news:prod is not loaded: unreachable")
            assert "10.1.2.3" not in message

        run(resolvers, test)

    def test_is_waited_for_once_and_then_no_more_until_it_answers(
        self, resolvers: LoRAResolverRegistry, news: Registry, line: Line, monkeypatch: pytest.MonkeyPatch
    ):
        async def test(vllm: Vllm, client: httpx.AsyncClient) -> None:
            assert await version_of(client, "team/news:prod") == "v1"
            monkeypatch.setattr(followed_refs, "ANSWER_TIMEOUT", 0.01)
            line.open.clear()
            assert await version_of(client, "team/news:prod") == "v1"
            monkeypatch.setattr(followed_refs, "ANSWER_TIMEOUT", 3600.0)  # who waited now would wait for good
            asked = len(line.asked)
            for _ in range(3):
                assert await version_of(client, "team/news:prod") == "v1"
            assert len(line.asked) == asked, "one question is under way; no other is put beside it"
            news.tag("team/news:v2", "prod")
            line.open.set()
            while await version_of(client, "team/news:prod") == "v1":  # without a question of its own
                await asyncio.sleep(0.01)
            assert await version_of(client, "team/news:prod") == "v2"

        run(resolvers, test)
