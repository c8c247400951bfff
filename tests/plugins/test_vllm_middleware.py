"""vLLM's middleware before a stand-in for vLLM, beside a real loreg server: what an alias means at each request."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import httpx
import pytest

import vllm_stub
from deployments import SCIENCE
from factories import change_config, copy
from loreg.errors import UsageError
from loreg.plugins import served_folders, vllm_middleware
from loreg.plugins.vllm_middleware import FollowAliases
from loreg.registry import Registry
from vllm_requests import BASE, Line, Unchanged, ask, run, version_of
from vllm_stub import LoRARequest, LoRAResolver, LoRAResolverRegistry, Vllm


class TestAnAliasThatMoves:
    def test_means_the_new_version_for_each_request_after_the_move(
        self, resolvers: LoRAResolverRegistry, news: Registry
    ):
        async def test(vllm: Vllm, client: httpx.AsyncClient) -> None:
            assert await version_of(client, "team/news:prod") == "v1"
            for number in ("v2", "v1", "v2"):
                news.tag(f"team/news:{number}", "prod")
                assert await version_of(client, "team/news:prod") == number

        run(resolvers, test)

    @pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/embeddings", "/tokenize", "/v2/rerank"])
    def test_moves_on_every_route_that_names_a_model(self, resolvers: LoRAResolverRegistry, news: Registry, path: str):
        async def test(vllm: Vllm, client: httpx.AsyncClient) -> None:
            for number in ("v1", "v2"):
                news.tag(f"team/news:{number}", "prod")
                assert (await ask(client, "team/news:prod", path)).json()["model"] == news.show(
                    f"team/news:{number}"
                ).version.pinned

        run(resolvers, test)

    def test_leaves_requests_under_way_on_the_old_version_and_unloads_it_after_them(
        self, resolvers: LoRAResolverRegistry, news: Registry
    ):
        old, new = (news.show(f"team/news:{number}").version.pinned for number in ("v1", "v2"))

        async def test(vllm: Vllm, client: httpx.AsyncClient) -> None:
            vllm.gate.clear()
            earlier = [asyncio.create_task(ask(client, "team/news:prod")) for _ in range(2)]
            assert {await vllm.arrived.get() for _ in earlier} == {old}
            news.tag("team/news:v2", "prod")
            later = asyncio.create_task(ask(client, "team/news:prod"))
            assert await vllm.arrived.get() == new
            assert set(vllm.models.lora_requests) == {old, new}
            vllm.gate.set()
            assert {(await request).json()["model"] for request in earlier} == {old}
            assert (await later).json()["model"] == new
            assert set(vllm.models.lora_requests) == {new}
            assert await version_of(client, old) == "v1", "by its own name it is loaded again"

        run(resolvers, test)

    def test_leaves_another_alias_of_the_adapter_where_it_was(self, resolvers: LoRAResolverRegistry, news: Registry):
        news.tag("team/news:v1", "canary")

        async def test(vllm: Vllm, client: httpx.AsyncClient) -> None:
            for alias in ("prod", "canary"):
                assert await version_of(client, f"team/news:{alias}") == "v1"
            loaded = dict(vllm.models.lora_requests)
            assert len(loaded) == 1, "one version is loaded once, however many aliases mean it"
            news.tag("team/news:v2", "prod")
            assert await version_of(client, "team/news:prod") == "v2"
            assert loaded.items() <= vllm.models.lora_requests.items(), "an alias still means it"
            assert await version_of(client, "team/news:canary") == "v1"

        run(resolvers, test)

    def test_is_never_answered_by_what_the_registry_was_asked_before(
        self, resolvers: LoRAResolverRegistry, news: Registry, line: Line
    ):
        async def test(vllm: Vllm, client: httpx.AsyncClient) -> None:
            line.open.clear()
            before = asyncio.create_task(version_of(client, "team/news:prod"))
            await line.hear()  # "it is v1" is on its way
            news.tag("team/news:v2", "prod")
            after = asyncio.create_task(version_of(client, "team/news:prod"))
            await asyncio.sleep(0)
            line.open.set()
            assert (await before, await after) == ("v1", "v2")

        run(resolvers, test)


def test_who_waits_shares_one_question(resolvers: LoRAResolverRegistry, news: Registry, line: Line):
    async def test(vllm: Vllm, client: httpx.AsyncClient) -> None:
        line.open.clear()
        first = asyncio.create_task(version_of(client, "team/news:prod"))
        await line.hear()
        others = [asyncio.create_task(version_of(client, "team/news:prod")) for _ in range(30)]
        await asyncio.sleep(0)
        line.open.set()
        assert set(await asyncio.gather(first, *others)) == {"v1"}
        assert line.asked == ["team/news:prod"] * 2

    run(resolvers, test)


class TestOtherNames:
    def test_of_other_resolvers_are_theirs(self, resolvers: LoRAResolverRegistry, news: Registry):
        class Theirs(LoRAResolver):
            async def resolve_lora(self, base_model_name: str, lora_name: str) -> LoRARequest | None:
                return LoRARequest(lora_name, 1, "/elsewhere") if lora_name == "another" else None

        resolvers.register_resolver("theirs", Theirs())

        async def test(vllm: Vllm, client: httpx.AsyncClient) -> None:
            for _ in range(2):
                assert (await ask(client, "another")).json()["path"] == "/elsewhere"
            assert (await ask(client, "neither")).json() == {
                "error": {"message": "The model `neither` does not exist."}
            }
            assert await version_of(client, "team/news:prod") == "v1"

        run(resolvers, test)

    def test_that_get_past_the_middleware_are_not_loaded_for_good(
        self, resolvers: LoRAResolverRegistry, news: Registry
    ):
        async def test(vllm: Vllm, client: httpx.AsyncClient) -> None:
            assert await version_of(client, "team/news:prod") == "v1"
            past = await client.post(
                "/v1/completions", content=b'{"model": "team/news:prod"}', headers={"Content-Type": "text/plain"}
            )
            assert past.status_code == 404

        run(resolvers, test)

    def test_leave_no_more_folders_than_are_needed(
        self, resolvers: LoRAResolverRegistry, news: Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ):
        """A folder that vLLM has loaded stays, however long ago it was asked for."""
        monkeypatch.setattr(served_folders, "MAX_FOLDERS", 1)
        monkeypatch.setattr(served_folders, "MIN_AGE", -60.0)
        news.push(change_config(copy(SCIENCE, tmp_path / "third"), lora_alpha=5), "team/news")
        news.push(change_config(copy(SCIENCE, tmp_path / "other"), lora_alpha=6), "team/other")

        async def test(vllm: Vllm, client: httpx.AsyncClient) -> None:
            kept = (await ask(client, "team/other")).json()["path"]
            paths = []
            for number in ("v1", "v2", "v3"):
                news.tag(f"team/news:{number}", "prod")
                paths.append((await ask(client, "team/news:prod")).json()["path"])
            assert {str(path) for path in Path(kept).parent.iterdir() if len(path.name) == 64} == {kept, *paths[1:]}
            news.tag("team/news:v1", "prod")
            assert await version_of(client, "team/news:prod") == "v1", "what was removed is pulled again"

        run(resolvers, test)

    def test_that_were_named_long_ago_are_unloaded(
        self, resolvers: LoRAResolverRegistry, news: Registry, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(vllm_middleware, "_MIN_REFS", 1)

        async def test(vllm: Vllm, client: httpx.AsyncClient) -> None:
            vllm.app.state.vllm_config.lora_config.max_cpu_loras = 1
            for number in ("v1", "v2") * 5:
                assert await version_of(client, f"team/news:{number}") == number
                assert [name.partition("@")[0] for name in vllm.models.lora_requests] == [f"team/news:{number}"]

        run(resolvers, test)


class TestAStart:
    def test_needs_vllm_to_ask_resolvers(self, resolvers: LoRAResolverRegistry, endpoint: str):
        sys.modules["vllm"].envs.VLLM_ALLOW_RUNTIME_LORA_UPDATING = False
        with pytest.raises(UsageError, match="Hint: export VLLM_ALLOW_RUNTIME_LORA_UPDATING=1"):
            FollowAliases(Unchanged(None))

    def test_needs_the_plugin(self, monkeypatch: pytest.MonkeyPatch, endpoint: str):
        vllm_stub.install(monkeypatch)
        with pytest.raises(UsageError, match="'loreg', which VLLM_PLUGINS leaves out"):
            FollowAliases(Unchanged(None))

    def test_without_adapters_leaves_every_request_as_it_is(
        self, resolvers: LoRAResolverRegistry, news: Registry, line: Line
    ):
        async def test(vllm: Vllm, client: httpx.AsyncClient) -> None:
            vllm.app.state.vllm_config.lora_config = None
            assert (await ask(client, BASE)).status_code == 200
            assert (await ask(client, "team/news:prod")).status_code == 404

        run(resolvers, test)
        assert line.asked == []
