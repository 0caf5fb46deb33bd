"""What clients submit at the same moment is written in one transaction: a group commit.

SQLite has one writer at a time, and every commit waits for the one before it. With a transaction for each of
50 requests, the last one would wait for 49. Here those that arrive while one transaction is being written
share the next one.
"""

import asyncio
from collections.abc import Sequence

from fastapi.concurrency import run_in_threadpool

from services.task_records import Created, Wanted, create_all

MOST = 200  # rows in one transaction


class Inbox:
    """Where requests wait for the next transaction."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Wanted, asyncio.Future[Created]]] = []
        self._writer: asyncio.Task[None] | None = None

    async def put(self, wanted: Wanted) -> Created:
        """Write a row and return it, when it is committed. Raises as `task_records.create` does."""
        answer: asyncio.Future[Created] = asyncio.get_running_loop().create_future()
        self._waiting.append((wanted, answer))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())
        return await answer

    async def _write(self) -> None:
        while batch := self._waiting[:MOST]:
            del self._waiting[: len(batch)]
            made: Sequence[Created | Exception]
            try:
                made = await run_in_threadpool(create_all, [wanted for wanted, _ in batch])
            except Exception as error:  # noqa: BLE001 - it belongs to those who wait
                made = [error] * len(batch)
            for (_, answer), one in zip(batch, made, strict=True):
                _tell(answer, one)


def _tell(answer: asyncio.Future[Created], made: Created | Exception) -> None:
    if answer.done():  # who asked has hung up
        return
    if isinstance(made, Exception):
        answer.set_exception(made)
    else:
        answer.set_result(made)
