"""The command line on a terminal of a chosen width, as a person sees it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping

_STYLE = re.compile(r"\x1b\[[0-9;]*m")


_RUN_EACH = """
import json, sys
from loreg_cli.main import cli
for arguments in json.loads(sys.argv[1]):
    try: cli(arguments)
    except SystemExit as end:
        if end.code: raise
    print("\\x1e", flush=True)
"""


def show_on_terminal(
    commands: list[list[str]], columns: int, environment: Mapping[str, str], *, with_stderr: bool = False
) -> list[str]:
    """Run ``loreg`` for each command with stdout on a pseudo-terminal; return what it shows there, without colours."""
    leader, follower = os.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    inherited = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    command = [sys.executable, "-c", _RUN_EACH, json.dumps(commands)]
    variables = {**inherited, **environment, "TERM": "xterm"}
    process = subprocess.Popen(
        command, stdout=follower, stderr=follower if with_stderr else subprocess.PIPE, env=variables
    )
    os.close(follower)
    shown = b""
    with contextlib.suppress(OSError):  # Linux says so when the other side is closed
        while chunk := os.read(leader, 65536):
            shown += chunk
    os.close(leader)
    _, errors = process.communicate()
    assert process.returncode == 0, (errors or shown).decode()
    return _STYLE.sub("", shown.decode()).replace("\r\n", "\n").split("\x1e\n")[:-1]
