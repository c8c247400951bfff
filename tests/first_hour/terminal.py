"""Type commands in a terminal of a given width, and read what a person sees: in tmux, else in a pty."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shlex
import shutil
import struct
import subprocess
import termios
import uuid
from pathlib import Path

from concurrency import eventually

_HEIGHT = 50
_ESCAPES = re.compile(r"\x1b(\[[0-9;?]*[A-Za-z]|[()][A-Z0-9]|[=>])")


def type_in_terminal(
    command: str, folder: Path, columns: int, environment: dict[str, str], question: str = "", answer: str = ""
) -> str:
    """Run the command in a terminal and return its screen, with what scrolled away; type the answer to a question."""
    in_terminal = _in_tmux if shutil.which("tmux") else _in_pty
    return in_terminal(command, folder, columns, environment, question, answer)


def _in_tmux(command: str, folder: Path, columns: int, environment: dict[str, str], question: str, answer: str) -> str:
    socket, done = f"loreg-{uuid.uuid4().hex[:12]}", "done"

    def tmux(*arguments: str) -> str:
        return subprocess.run(
            ["tmux", "-L", socket, "-f", "/dev/null", *arguments],
            check=True,
            capture_output=True,
            text=True,
            timeout=280,
        ).stdout

    variables = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in environment.items())
    script = f"unset COLUMNS LINES\n{variables}{command}\ntmux -L {socket} wait-for -S {done}\ncat\n"
    try:
        tmux(
            "set-option", "-g", "history-limit", "20000", ";",
            "new-session", "-d", "-x", str(columns), "-y", str(_HEIGHT), "-c", str(folder),
            f"bash --norc -c {shlex.quote(script)}",
        )  # fmt: skip
        if question:
            eventually(lambda: question in tmux("capture-pane", "-p", "-J"))
            tmux("send-keys", answer, "Enter")
        tmux("wait-for", done)
        return tmux("capture-pane", "-p", "-J", "-S", "-")
    finally:
        subprocess.run(["tmux", "-L", socket, "kill-server"], capture_output=True)


def _in_pty(command: str, folder: Path, columns: int, environment: dict[str, str], question: str, answer: str) -> str:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", _HEIGHT, columns, 0, 0))
    with subprocess.Popen(
        ["bash", "--norc", "-c", command], cwd=folder, env={**environment, "TERM": "xterm"}, stdin=theirs,
        stdout=theirs, stderr=theirs, start_new_session=True,
    ):  # fmt: skip
        os.close(theirs)
        screen, is_answered = b"", not question
        while True:
            try:
                screen += (part := os.read(ours, 65536))
            except OSError:  # Linux says so when the other end is closed
                break
            if not part:
                break
            if not is_answered and question.encode() in screen:
                os.write(ours, f"{answer}\n".encode())
                is_answered = True
    os.close(ours)
    return _ESCAPES.sub("", screen.decode(errors="replace")).replace("\r\n", "\n")
