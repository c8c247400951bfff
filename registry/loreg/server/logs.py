"""Write every log as one JSON document a line."""

from __future__ import annotations

import json
import logging
import sys

REQUESTS = logging.getLogger("loreg.server")


class JsonLines(logging.Formatter):
    """Formats records as JSON; lines about requests are JSON already."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line for one record."""
        if record.name == REQUESTS.name:
            return record.getMessage()
        line = {"level": record.levelname.lower(), "logger": record.name, "message": record.getMessage()}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def write_json_lines() -> None:
    """Send every log of the process to stdout, without looking up what no line uses (logging's "Optimization")."""
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None
    stdout = logging.StreamHandler(sys.stdout)
    stdout.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[stdout])
