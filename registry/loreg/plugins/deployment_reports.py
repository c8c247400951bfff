"""Tell the registry what a server serves: after each change, and now and then, so that it is known to live."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from loreg.errors import LoregError
from loreg.pauses import GrowingPauses

_log = logging.getLogger("vllm.loreg")
_INTERVAL = 300.0  # seconds after which it is told again that nothing has changed
_FIRST_RETRY = 5.0  # seconds after which what could not be told is told again; then more, up to the interval
_PAUSE = 0.2  # seconds in which changes that come together are one

#: For each ref that requests name: the ref, the pinned version that it means, and its alias, or empty.
Served = Sequence[tuple[str, str, str]]


class DeploymentReports:
    """Reports what is served, from a thread of its own; no request waits for it, and nothing of it ends the server.

    ``report`` tells the registry all of it, or with None that it is as told last, for which it raises NotFoundError
    where the registry does not know that any more.
    """

    def __init__(self, report: Callable[[Served | None], None]) -> None:
        self._report = report
        self._served: Served = ()
        self._is_changed = threading.Event()
        self._thread: threading.Thread | None = None

    def change(self, served: Served) -> None:
        """Have this told next."""
        self._served = served
        self._is_changed.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="loreg-reports", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        interval, is_known = _INTERVAL, False
        pauses = GrowingPauses(_FIRST_RETRY, _INTERVAL)
        while True:
            if self._is_changed.wait(interval):
                time.sleep(_PAUSE)
                is_known = False
            self._is_changed.clear()
            try:
                self._report(None if is_known else self._served)
                interval, is_known = _INTERVAL, True
                pauses.reset()
            except LoregError as error:
                _log.debug("loreg: what is served could not be told: %s", error)
                interval, is_known = pauses.next(), False
