"""Logs: one JSON document a line, whoever speaks."""

from __future__ import annotations

import json
import logging
import sys

REQUESTS = logging.getLogger("loreg.server")


class JsonLines(logging.Formatter):
    """Requests are JSON already; everything else is put into a document."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        if record.name == REQUESTS.name:
            return record.getMessage()
        line = {"level": record.levelname.lower(), "logger": record.name, "message": record.getMessage()}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def write_json_lines() -> None:
    """Send every log of the process to stdout. What no line says is not looked up either (logging's "Optimization")."""
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
