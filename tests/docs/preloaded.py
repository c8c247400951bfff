"""A Python that has imported what the programs of the pages import, and forks for each: imports are most of their cost.

A program is a process of its own, with its own arguments, environment, folder and standard streams, and with a status.
One that names another Hub is started as usual: huggingface_hub reads that when it is imported.
"""

from __future__ import annotations

import array
import ast
import atexit
import contextlib
import gc
import importlib
import os
import pkgutil
import runpy
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

#: Stands in for ``loreg`` and ``python``. It imports next to nothing, so that it starts at once.
_STAND_IN = """\
#!{python} -IS
import _socket, os, sys
program, real, words = {program!r}, {real!r}, sys.argv[1:]
if "HF_ENDPOINT" in os.environ or program == "python" and not (words and words[0].endswith(".py")):
    os.execv(real, [real, *words])
connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
connection.connect({address!r})
process = repr((program, real, words, dict(os.environ), os.getcwd())).encode()
streams = b"".join(number.to_bytes(4, sys.byteorder) for number in (0, 1, 2))
connection.sendmsg([len(process).to_bytes(8, "big")], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, streams)])
while process:
    process = process[connection.send(process):]
sys.exit(int(connection.recv(8) or b"70"))
"""
_READY = b"ready"


@contextlib.contextmanager
def preloaded_python(folder: Path) -> Iterator[Path]:
    """Yield a folder with the stand-ins ``loreg`` and ``python``, to be put first in a PATH."""
    programs, address = folder / "bin", folder / "socket"
    programs.mkdir()
    for program in ("loreg", "python"):
        real = Path(sys.executable).with_name(program)
        text = _STAND_IN.format(python=sys.executable, program=program, real=str(real), address=str(address))
        (programs / program).write_text(text)
        (programs / program).chmod(0o755)
    environment = {
        **{name: value for name, value in os.environ.items() if name in ("PATH", "PYTHONPATH")},
        "HOME": str(folder), "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, __file__, str(address)], cwd=folder, env=environment, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        assert process.stdout.read(len(_READY)) == _READY, "it did not start"
        yield programs
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def import_all() -> None:
    """Import what programs use: every module of loreg, and the libraries beside it."""
    for package in ("loreg", "loreg_cli"):
        for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            if not module.name.startswith("loreg.plugins"):  # which only vLLM can import
                importlib.import_module(module.name)
    for name in ("peft", "transformers.models.bert.modeling_bert", "transformers.models.auto.tokenization_auto"):
        importlib.import_module(name)


def receive(connection: socket.socket) -> tuple[list[int], tuple[str, str, list[str], dict[str, str], str]]:
    """Return the streams of a stand-in, and its program, the real one, its arguments, environment and folder."""
    streams = array.array("i")
    header, ancillary, _, _ = connection.recvmsg(8, socket.CMSG_SPACE(3 * streams.itemsize))
    for _, _, data in ancillary:
        streams.frombytes(data)
    with connection.makefile("rb") as file:
        process = file.read(int.from_bytes(header, "big"))
    return list(streams), ast.literal_eval(process.decode())


def fork_for_each(address: str) -> tuple[str, str]:
    """Listen for stand-ins; return in a child, which is the process of one now, with its program and the real one."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    os.write(1, _READY)
    while True:
        connection, _ = listener.accept()
        streams, (program, real, words, environment, folder) = receive(connection)
        if child := os.fork():
            for stream in streams:
                os.close(stream)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            with contextlib.suppress(OSError):  # the stand-in was killed
                connection.send(str(status if status >= 0 else 128 - status).encode())
            connection.close()
            continue
        connection.close()
        listener.close()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
        sys.argv = [real if program == "loreg" else words[0], *words[program == "python" :]]
        return program, real


def run_and_exit(path: str) -> NoReturn:
    """Run the program and what it registered for its end, and end without taking apart what was only inherited."""
    status: object = 0
    try:
        runpy.run_path(path, run_name="__main__")
    except SystemExit as end:
        status = end.code
    except BaseException:
        traceback.print_exc()
        status = 1
    if not isinstance(status, int | None):
        print(status, file=sys.stderr)
        status = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(status or 0)


if __name__ == "__main__":
    import_all()
    gc.freeze()
    program, real = fork_for_each(sys.argv[1])
    sys.path[0] = str(Path(sys.argv[0]).parent)
    run_and_exit(sys.argv[0] if program == "python" else real)
