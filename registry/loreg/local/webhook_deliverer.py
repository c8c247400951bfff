"""Deliver to webhooks, in the background of a server or a worker: several may, and share the work by claims."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import secrets
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from loreg.catalog import Catalog, webhook_deliveries, webhooks
from loreg.catalog.webhook_deliveries import Attempt, Outcome
from loreg.entities import Access
from loreg.errors import LoregError
from loreg.local.webhook_events import queue_events
from loreg.local.webhook_transport import IpNetwork, SendError, Transport, new_deadline
from loreg.webhooks import sign

_THREADS = 8  # each has one webhook at a time
_TURN = 20  # deliveries after which a webhook lets others go first
_LOOK = 0.5  # seconds that it listens for before it looks whether it is to end
_RECHECK = 5.0  # seconds after which the catalog is asked though it told of nothing
_IDLE = 2.0  # seconds between two questions whether there is a webhook now, and after an error of the catalog
_CLEANUP_INTERVAL = 3600.0  # seconds
_FIRST_PAUSE, _MAX_PAUSE = 5.0, 4 * 3600.0  # seconds after a failure; each further pause is three times as long
_log = logging.getLogger("loreg.webhooks")


@contextlib.contextmanager
def delivering(catalog: Catalog, allowed: Sequence[IpNetwork] = ()) -> Iterator[None]:
    """Deliver in a thread as long as the context lasts; what is being sent at its end is broken off."""
    deliverer = Deliverer(catalog, Transport(allowed))
    thread = threading.Thread(target=deliverer.run, name="loreg-webhooks", daemon=True)
    thread.start()
    try:
        yield
    finally:
        deliverer.end()
        thread.join()


class Deliverer:
    """Queues events for webhooks, and sends what is due."""

    def __init__(self, catalog: Catalog, transport: Transport) -> None:
        self._catalog, self._transport = catalog, transport
        self._name = f"{socket.gethostname()[:60]}:{os.getpid()}:{secrets.token_hex(4)}"
        self._access = Access.superuser("loreg")
        self._ends = threading.Event()
        self._busy: set[int] = set()
        self._has_changed = threading.Event()  # a thread is done with its webhook
        self._cleaned_up_at = float("-inf")

    def end(self) -> None:
        """Let :meth:`run` return."""
        self._ends.set()
        self._transport.abort()

    def run(self) -> None:
        """Deliver until :meth:`end` is called, through outages of the database."""
        with (
            contextlib.closing(self._catalog.listen_for_events()) as listener,
            ThreadPoolExecutor(_THREADS, "loreg-webhook") as pool,
        ):
            while not self._ends.is_set():
                pause = self._deliver(pool)
                if pause is None:
                    listener.close()  # what nobody reads, PostgreSQL would keep
                    self._ends.wait(_IDLE)
                    continue
                deadline = time.monotonic() + min(pause, _RECHECK)
                while (remaining := deadline - time.monotonic()) > 0 and not self._ends.is_set():
                    seconds = min(_LOOK, remaining)
                    if listener.wait(seconds, seconds) or self._has_changed.is_set():
                        break

    def _deliver(self, pool: ThreadPoolExecutor) -> float | None:
        """Begin to send what is due; return in how many seconds more may be, None while there is no webhook."""
        self._has_changed.clear()
        try:
            with self._catalog.read() as tx:
                if not webhooks.list_active(tx):
                    return None
            self._clean_up()
            while queue_events(self._catalog):
                pass
            with self._catalog.read() as tx:
                due, pause = webhook_deliveries.list_due(tx, self._name)
        except LoregError as error:
            _log.warning("webhooks could not be looked after: %s", error)
            return _RECHECK
        except Exception:  # it is tried again: nobody else would notice that nothing is sent any more
            _log.exception("webhooks could not be looked after")
            return _RECHECK
        for webhook_id in due:
            if webhook_id not in self._busy:
                self._busy.add(webhook_id)
                pool.submit(self._deliver_to, webhook_id)
        return _RECHECK if pause is None else pause

    def _clean_up(self) -> None:
        if time.monotonic() - self._cleaned_up_at > _CLEANUP_INTERVAL:
            with self._catalog.write(self._access) as tx:
                webhook_deliveries.clean_up(tx)
            self._cleaned_up_at = time.monotonic()

    def _deliver_to(self, webhook_id: int) -> None:
        """Send what is due to one webhook, one after the other."""
        try:
            attempt, outcome = None, None
            for _ in range(_TURN):
                deadline = new_deadline()  # before the claim: a process that was stopped sends nothing when another may
                with self._catalog.write(self._access) as tx:
                    if attempt is not None and outcome is not None:
                        webhook_deliveries.record(tx, attempt, self._name, outcome)
                    attempt = webhook_deliveries.claim_next(tx, webhook_id, self._name)
                if attempt is None:
                    return
                outcome = self._send(attempt, deadline)
                if self._ends.is_set():
                    break
            with self._catalog.write(self._access) as tx:
                if attempt is not None and outcome is not None and not self._ends.is_set():
                    webhook_deliveries.record(tx, attempt, self._name, outcome)
                webhook_deliveries.release(tx, webhook_id, self._name)
        except LoregError as error:  # what was sent and not recorded is sent again
            _log.warning("webhook %d: %s", webhook_id, error)
            self._ends.wait(_IDLE)
        except Exception:
            _log.exception("webhook %d", webhook_id)
            self._ends.wait(_RECHECK)
        finally:
            self._busy.discard(webhook_id)
            self._has_changed.set()

    def _send(self, attempt: Attempt, deadline: float) -> Outcome:
        body = attempt.body.encode()
        signed = sign(body, attempt.message_id, int(time.time()), attempt.secrets)
        headers = {"Content-Type": "application/json", **signed}
        pause = min(_FIRST_PAUSE * 3**attempt.attempts, _MAX_PAUSE) * random.uniform(0.75, 1.25)  # noqa: S311
        try:
            status = self._transport.post(attempt.url, headers, body, deadline)
        except SendError as error:
            _log.info("webhook %d: %s", attempt.webhook_id, error)
            return Outcome(None, str(error)[:256], pause)
        error_text = "" if 200 <= status < 300 else f"HTTP {status}"
        return Outcome(status, error_text, pause)
