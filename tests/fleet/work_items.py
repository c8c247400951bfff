"""What workers are given in tests: in a module of its own, which they import."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from loreg.errors import LoregError, MergeError


@dataclass(frozen=True)
class Square:
    number: int

    def run(self) -> int:
        return self.number**2


@dataclass(frozen=True)
class Dying:
    """Ends its worker until it has been begun ``lives`` times."""

    folder: Path
    lives: int

    def run(self) -> int:
        (self.folder / str(os.getpid())).touch()
        if len(list(self.folder.iterdir())) <= self.lives:
            os.abort()
        return self.lives


@dataclass(frozen=True)
class Failing:
    def run(self) -> LoregError:
        return MergeError("no such sum", hint="loreg merge --help")


@dataclass(frozen=True)
class Endless:
    """Leaves the id of its process in a folder, and does not end."""

    folder: Path

    def run(self) -> None:
        (self.folder / str(os.getpid())).touch()
        time.sleep(1000)
