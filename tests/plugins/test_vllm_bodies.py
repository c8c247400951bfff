"""What vLLM's middleware does to the bodies of requests and answers: it changes the name of the model alone."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from loreg.registry import Registry
from vllm_requests import BASE, Line, Unchanged, run
from vllm_stub import LoRARequest, LoRAResolverRegistry, Vllm


class TestABody:
    @pytest.mark.parametrize(
        "body",
        [
            json.dumps({"model": BASE, "prompt": "x"}).encode(),
            b'{"model": "theirs", "prompt": 1}',
            b'{"model": "../etc/passwd"}',
            b'{"model": 7}',
            b'{"prompt": "x"}',
            b'["team/news:prod"]',
            b"no JSON",
            b"",
            pytest.param(gzip.compress(b'{"model": "team/news:prod"}'), id="compressed"),
        ],
    )
    def test_that_names_no_ref_is_left_as_it_is(
        self, resolvers: LoRAResolverRegistry, news: Registry, line: Line, body: bytes
    ):
        async def test(vllm: Vllm, client: httpx.AsyncClient) -> None:
            vllm.models.lora_requests["theirs"] = LoRARequest("theirs", 1, "/elsewhere")
            headers = {"Content-Type": "application/json"}
            through = await client.post("/v1/completions", content=body, headers=headers)
            bare = Vllm(BASE, resolvers, Unchanged)
            bare.models.lora_requests["theirs"] = LoRARequest("theirs", 1, "/elsewhere")
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app=bare.app)) as direct:
                without = await direct.post("http://vllm/v1/completions", content=body, headers=headers)
            assert (through.status_code, through.content) == (without.status_code, without.content)

        run(resolvers, test)
        assert line.asked == []

    @pytest.mark.parametrize(
        "encode",
        [
            lambda name: b'{"prompt": "\xc3\xa9", "model": "%b", "seed": 1.50, "big": 123456789012345678901}' % name,
            lambda name: b'{"model": "%b", "temperature": NaN, "stop": null}' % name,
            lambda name: b'{"model": "x", "nested": {"model": "y"}, "model": "%b"}' % name,
            lambda name: b'{"model": "%b", "half": "\\ud800"}' % name,
            lambda name: json.dumps({"model": name.decode(), "prompt": "é"}).encode("utf-16"),
        ],
        ids=["values", "NaN", "twice", "half a character", "UTF-16"],
    )
    def test_keeps_all_but_the_name(
        self, resolvers: LoRAResolverRegistry, news: Registry, encode: Callable[[bytes], bytes]
    ):
        """Right is what Python's json reads, as vLLM does: the second of two values, NaN, other encodings."""
        pinned = news.show("team/news:v1").version.pinned

        async def test(vllm: Vllm, client: httpx.AsyncClient) -> None:
            body = encode(b"team/news:prod")
            headers = {"Content-Type": "application/json; charset=utf-8"}

            async def in_pieces() -> AsyncIterator[bytes]:
                for start in range(0, len(body), 7):
                    yield body[start : start + 7]

            for content in (body, in_pieces()):
                answer = (await client.post("/v1/completions", content=content, headers=headers)).json()
                sent = json.loads(answer["body"].encode("latin-1"))
                assert repr(sent) == repr({**json.loads(body), "model": pinned})

        run(resolvers, test)


def test_a_stream_is_passed_on_piece_by_piece(resolvers: LoRAResolverRegistry, news: Registry):
    pinned = news.show("team/news:v1").version.pinned

    async def test(vllm: Vllm, client: httpx.AsyncClient) -> None:
        pieces: asyncio.Queue[bytes] = asyncio.Queue()
        body = json.dumps({"model": "team/news:prod", "stream": True}).encode()

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            if message.get("body"):
                await pieces.put(message["body"])

        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        scope = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.4"}, "http_version": "1.1", "method": "POST",
            "path": "/v1/completions", "raw_path": b"/v1/completions", "query_string": b"", "root_path": "",
            "headers": headers,
        }  # fmt: skip
        answering = asyncio.create_task(vllm.app(scope, receive, send))
        for number in range(3):
            piece = await pieces.get()  # the next one is not even made
            assert json.loads(piece.removeprefix(b"data: ")) == {"model": pinned, "number": number}
            vllm.gate.set()
        await answering

    run(resolvers, test)
