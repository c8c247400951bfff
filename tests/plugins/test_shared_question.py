"""A question that many share: one at a time, and nobody gets an answer to one that was put before he came."""

from __future__ import annotations

import asyncio

from loreg.plugins.shared_question import SharedQuestion


def test_each_waits_for_the_next_question_and_all_for_the_same():
    async def run() -> None:
        put: list[asyncio.Future[str]] = []

        async def question() -> str:
            put.append(asyncio.get_running_loop().create_future())
            return await put[-1]

        shared = SharedQuestion(question)
        early = [shared.ask() for _ in range(3)]
        await asyncio.sleep(0)
        late = [shared.ask() for _ in range(3)]
        for _ in range(10):
            await asyncio.sleep(0)
        assert len(put) == 1, "the second waits until the first is answered"
        put[0].set_result("early")
        assert await asyncio.gather(*early) == ["early"] * 3
        while len(put) == 1:
            await asyncio.sleep(0)
        later = shared.ask()
        put[1].set_result("late")
        assert await asyncio.gather(*late) == ["late"] * 3
        while len(put) == 2:
            await asyncio.sleep(0)
        put[2].set_result("later")
        assert await later == "later"

    asyncio.run(run())
