"""Log the statements that the database is sent, with their times: ``loreg --debug`` shows them."""

from __future__ import annotations

import logging
import time
from typing import Any

from sqlalchemy import Engine, event

_log = logging.getLogger("loreg.catalog")
_STARTED = "loreg_started"


def log_statements(engine: Engine) -> Engine:
    """Log every statement of ``engine`` when it has been answered, on one line, without its values; return the engine.

    Nothing listens, and a statement costs nothing more, unless the log is on when the engine is made.
    """
    if _log.isEnabledFor(logging.DEBUG):
        event.listen(engine, "before_cursor_execute", _start)
        event.listen(engine, "after_cursor_execute", _finish)
    return engine


def _start(connection: Any, cursor: Any, sql: str, *_: object) -> None:
    connection.info[_STARTED] = time.perf_counter()


def _finish(connection: Any, cursor: Any, sql: str, parameters: object, context: object, many: bool) -> None:
    elapsed = (time.perf_counter() - connection.info[_STARTED]) * 1e3
    times = f", {len(parameters)} times" if many and isinstance(parameters, list | tuple) else ""
    _log.debug("%.1f ms%s: %s", elapsed, times, " ".join(sql.split()))
