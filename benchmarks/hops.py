"""How far a command is from the database, and how much code it enters: ``python benchmarks/hops.py``.

A push of a small adapter on SQLite and a folder, through the command line, in this process. Printed are the frames of
loreg's own code between the command and the statement that records the version, and how many of its functions are
entered in all (imports and comprehensions not counted). Fewer are easier to follow.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

ROOT = Path(__file__).parents[1]
OURS = (str(ROOT / "registry" / "loreg"), str(ROOT / "cli" / "loreg_cli"))
EXAMPLE = ROOT / "examples" / "adapters" / "smollm2-science-r8"


def own_frames(frame: FrameType | None) -> list[str]:
    """The functions of loreg on the stack, from the command inwards."""
    names: list[str] = []
    while frame is not None:
        if frame.f_code.co_filename.startswith(OURS):
            where = Path(frame.f_code.co_filename)
            names.append(f"{where.parent.name}/{where.stem}.{frame.f_code.co_qualname}")
        frame = frame.f_back
    return names[::-1]


def main() -> None:
    from sqlalchemy import Engine, event

    from loreg_cli.main import cli

    stacks: list[list[str]] = []
    entered: set[CodeType] = set()

    def on_statement(sql: str) -> None:
        if sql.startswith("INSERT INTO versions"):
            stacks.append(own_frames(sys._getframe(1)))

    def on_call(frame: FrameType, kind: str, _: Any) -> None:
        code = frame.f_code
        if kind == "call" and code.co_filename.startswith(OURS) and not code.co_name.startswith("<"):
            entered.add(code)

    event.listen(Engine, "connect", lambda connection, _: connection.set_trace_callback(on_statement))
    with tempfile.TemporaryDirectory(prefix="loreg-hops-") as home:
        os.environ |= {"LOREG_HOME": home}
        for name in ("warm/up", "team/science"):  # the first one imports, and makes the catalog
            entered.clear()
            with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
                sys.setprofile(on_call)
                try:
                    cli.main(["push", str(EXAMPLE), name])
                finally:
                    sys.setprofile(None)
    print(f"from the command to the statement that records a version: {len(stacks[-1])} frames\n")
    for depth, name in enumerate(stacks[-1], 1):
        print(f"  {depth:2} {name}")
    print(f"\nfunctions of loreg entered by one push: {len(entered)}")


if __name__ == "__main__":
    main()
