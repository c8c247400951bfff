"""What vLLM's middleware keeps from vLLM, and what the client is told."""

from __future__ import annotations

import httpx
import pytest

from deployments import DORA, NEWS, SCIENCE
from loreg.registry import Registry
from vllm_requests import Line, ask, run, version_of
from vllm_stub import LoRAResolverRegistry, Vllm


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("model", "status", "kind", "words"),
        [
            ("team/nothing", 404, "NotFoundError", "team/nothing is not loaded: unknown: there is no adapter"),
            ("team/news:v9", 404, "NotFoundError", "team/news:v9 is not loaded: unknown: "),
            ("team/yanked:prod", 404, "NotFoundError", "team/yanked:prod is not loaded: yanked: "),
            ("team/bert", 400, "BadRequestError", "team/bert:v1 is not loaded: wrong base: it was trained on "),
            ("team/dora", 400, "BadRequestError", "team/dora:v1 is not loaded: unfit: VL002 "),
        ],
    )
    def test_is_told_with_the_reason_in_the_words_of_the_api(
        self, resolvers: LoRAResolverRegistry, news: Registry, model: str, status: int, kind: str, words: str
    ):
        news.push(DORA, "team/dora")
        news.push(NEWS, "team/bert")
        news.push(SCIENCE, "team/yanked", aliases=["prod"])
        news.yank("team/yanked:v1")

        async def test(vllm: Vllm, client: httpx.AsyncClient) -> None:
            answer = await ask(client, model)
            error = answer.json()["error"]
            assert (answer.status_code, error["code"], error["type"], error["param"]) == (status, status, kind, "model")
            assert error["message"].startswith(words)
            assert answer.headers["x-request-id"] == "7", "what vLLM adds to every answer stays"
            assert vllm.models.locks == {}, "vLLM has not even heard of it"

        run(resolvers, test)

    def test_is_refused_under_an_alias_that_meant_something_better(
        self, resolvers: LoRAResolverRegistry, news: Registry, line: Line
    ):
        news.push(DORA, "team/news")

        async def test(vllm: Vllm, client: httpx.AsyncClient) -> None:
            assert await version_of(client, "team/news:prod") == "v1"
            news.tag("team/news:v3", "prod")
            assert (await ask(client, "team/news:prod")).status_code == 400
            line.is_cut = True
            assert (await ask(client, "team/news:prod")).status_code == 503, "the last word was that it is unfit"
            line.is_cut = False
            news.tag("team/news:v2", "prod")
            assert await version_of(client, "team/news:prod") == "v2"

        run(resolvers, test)

    def test_of_a_larger_rank_than_vllm_was_started_with_says_so(self, resolvers: LoRAResolverRegistry, news: Registry):
        async def test(vllm: Vllm, client: httpx.AsyncClient) -> None:
            vllm.app.state.vllm_config.lora_config.max_lora_rank = 1
            error = (await ask(client, "team/news:prod")).json()["error"]
            assert "unfit: VL001" in error["message"]
            assert "Hint: " in error["message"]

        run(resolvers, test)

    def test_without_the_key_of_vllm_nobody_learns_what_the_registry_has(
        self, resolvers: LoRAResolverRegistry, news: Registry, line: Line
    ):
        async def test(vllm: Vllm, client: httpx.AsyncClient) -> None:
            for model in ("team/news:prod", "team/nothing"):
                answer = await ask(client, model)
                assert (answer.status_code, answer.json()) == (401, {"error": "Unauthorized"})
            assert line.asked == []
            client.headers["Authorization"] = "Bearer key"
            assert await version_of(client, "team/news:prod") == "v1"

        run(resolvers, test, key="key")
