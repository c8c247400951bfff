"""Several people on one SQLite registry: who may write it writes, who may read it reads, nobody locks another out."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from sqlite3 import connect as connect_to

import pytest

from concurrency import all_at_once
from deployments import NEWS, Outcome
from loreg.catalog import Catalog, sqlite
from loreg.catalog.listing import list_adapters
from loreg.entities import Access
from loreg.errors import NotAllowedError, UnavailableError
from loreg.registry import connect
from os_users import ANN, BOB, EVE, TEAM, People, Person, commons, folder_of, permissions_below

Run = Callable[..., Outcome]
pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root can be several people")


@pytest.fixture(scope="module")
def crowd() -> Iterator[tuple[People, ...]]:
    with People() as one, People() as two, People() as three:
        yield one, two, three


@pytest.fixture
def square() -> Iterator[Path]:
    with commons() as folder:
        yield folder


def runner(people: People, home: Path) -> Run:
    def run(person: Person, *arguments: str | Path, **more) -> Outcome:
        return people.run(person, *arguments, **{"LOREG_HOME": home, **more})

    return run


def write(database: Path, statement: str, then: str = "") -> None:
    """Change the database from another process."""
    program = f"import sqlite3, sys; to = sqlite3.connect({str(database)!r}, isolation_level=None); "
    subprocess.run([sys.executable, "-c", f"{program} to.execute(sys.argv[1]); {then}", statement], check=True)


def check(outcome: Outcome) -> Outcome:
    assert outcome.exit_code == 0, outcome.stderr
    return outcome


@pytest.mark.parametrize("mode", [0o2775, 0o2770], ids=oct)
@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077], ids=oct)
@pytest.mark.parametrize("below", ["", "home"])
def test_a_group_works_in_one_folder_under_any_umask(crowd, square: Path, mode: int, umask: int, below: str):
    shared = folder_of(ANN, square / "shared", mode, TEAM)
    run = runner(crowd[0], shared / below)
    mine = folder_of(BOB, square / "bob", 0o755)
    check(run(ANN, "push", square / "news", "team/a", umask=umask))
    for _ in range(2):
        check(run(BOB, "ls", umask=umask))
        check(run(ANN, "tag", "team/a", "prod", umask=umask))
        check(run(BOB, "push", square / "news", "team/b", umask=umask))
    check(run(BOB, "pull", "team/a:prod", mine / "a", umask=umask))
    assert "team/b" in check(run(ANN, "ls", umask=umask)).stdout
    files = mode & 0o666
    assert set(permissions_below(shared).values()) == {mode & 0o777, files, files & 0o444}


def test_a_group_that_is_the_own_group_of_all_needs_no_setgid(crowd, square: Path):
    """On many clusters everybody of a group has it as his own, and umask 002."""
    ann, bob = Person(ANN.uid, TEAM), Person(BOB.uid, TEAM)
    run = runner(crowd[0], folder_of(ann, square / "shared", 0o775))
    check(run(ann, "push", square / "news", "team/a"))
    check(run(bob, "push", square / "news", "team/b"))
    check(run(ann, "tag", "team/b", "prod"))
    assert run(EVE, "ls").exit_code == 4


def test_who_is_not_of_the_group_is_told_so(crowd, square: Path):
    run = runner(crowd[0], folder_of(ANN, square / "shared", 0o2770, TEAM))
    check(run(ANN, "push", square / "news", "team/a"))
    for arguments in (("ls",), ("show", "team/a"), ("pull", "team/a", square / "x"), ("push", square / "news", "b")):
        outcome = run(EVE, *arguments)
        assert outcome.exit_code == 4
        assert "Hint: " in outcome.stderr


def test_a_registry_that_is_its_owners_alone_is_refused_with_what_would_share_it(crowd, square: Path):
    home = folder_of(ANN, square / "home", 0o2755, TEAM)
    run = runner(crowd[0], home)
    check(run(ANN, "push", square / "news", "team/a"))
    refused = run(BOB, "ls")
    assert refused.exit_code == 4
    assert "catalog.db belongs to user 54301 and has mode 0600" in refused.stderr
    hint = refused.stderr.partition("Hint: ")[2].replace("GROUP", str(TEAM))
    subprocess.run(hint, shell=True, check=True)
    for _ in range(2):
        check(run(BOB, "push", square / "news", "team/b"))
        check(run(ANN, "push", square / "news", "team/c"))


class TestReadingOnly:
    @pytest.fixture
    def home(self, square: Path) -> Path:
        return folder_of(ANN, square / "home", 0o755)

    @pytest.fixture
    def run(self, crowd, square: Path, home: Path) -> Run:
        run = runner(crowd[0], home)
        check(run(ANN, "push", square / "news", "team/a"))
        subprocess.run(["chmod", "-R", "a+rX", home], check=True)
        return run

    def read_all(self, run: Run, person: Person, square: Path) -> None:
        before = permissions_below(square / "home")
        for arguments in (("ls",), ("ls", "team/a"), ("show", "team/a"), ("search",), ("lineage", "team/a")):
            assert "team/a" in check(run(person, *arguments)).stdout
        mine = square / "mine"
        shutil.rmtree(mine, ignore_errors=True)
        folder_of(person, mine, 0o755)
        check(run(person, "pull", "team/a", mine / "a"))
        check(run(person, "check", "team/a"))
        assert permissions_below(square / "home") == before

    def test_who_may_read_a_registry_reads_it(self, run: Run, square: Path, home: Path):
        self.read_all(run, EVE, square)
        refused = run(EVE, "push", square / "news", "team/b")
        assert refused.exit_code == 4
        assert "may not be written" in refused.stderr
        check(run(ANN, "push", square / "news", "team/b"))
        self.read_all(run, EVE, square)
        assert "team/b" in run(EVE, "ls").stdout

    def test_a_reader_who_may_write_beside_the_database_makes_nothing_there(self, run: Run, square: Path, home: Path):
        """As it was in a folder of a group whose database was made by an older loreg: 0644, and the reader's -wal."""
        os.chown(home, ANN.uid, TEAM)
        home.chmod(0o2775)
        self.read_all(run, BOB, square)
        check(run(ANN, "push", square / "news", "team/b"))

    def test_a_writer_who_would_lock_the_owner_out_only_reads(self, run: Run, square: Path, home: Path):
        """The database is the group's, the folder does not hand the group on: -wal would be of the writer's own."""
        for path in (home, *home.rglob("*")):
            os.chown(path, ANN.uid, TEAM)
        subprocess.run(["chmod", "-R", "g+rwX", home], check=True)
        self.read_all(run, BOB, square)
        refused = run(BOB, "tag", "team/a", "prod")
        assert refused.exit_code == 4
        assert "could not use what would be made beside it" in refused.stderr
        check(run(ANN, "push", square / "news", "team/b"))
        subprocess.run(refused.stderr.partition("Hint: ")[2].replace("GROUP", str(TEAM)), shell=True, check=True)
        check(run(BOB, "tag", "team/a", "prod"))
        check(run(ANN, "tag", "team/a", "prod"))

    def test_what_a_killed_writer_left_is_read(self, run: Run, square: Path, home: Path):
        self.write_and_die(home, "UPDATE adapters SET name = 'b'")
        outcome = check(run(EVE, "ls"))
        assert "team/b" in outcome.stdout
        assert (home / "catalog.db-wal").stat().st_size > 0
        check(run(ANN, "tag", "team/b", "prod"))
        assert "prod" in check(run(EVE, "ls")).stdout

    def test_a_copy_that_nobody_can_complete_by_reading_is_refused_and_not_read_in_part(
        self, run: Run, square: Path, home: Path
    ):
        self.write_and_die(home, "UPDATE adapters SET name = 'b'")
        (home / "catalog.db-shm").unlink()
        refused = run(EVE, "ls")
        assert refused.exit_code == 1
        assert "its -wal has no -shm" in refused.stderr
        assert not (home / "catalog.db-shm").exists()
        check(run(ANN, "ls"))
        assert "team/b" in check(run(EVE, "ls")).stdout

    def test_what_another_left_beside_the_database_is_named(self, run: Run, square: Path, home: Path):
        for suffix in ("-wal", "-shm"):
            path = home / f"catalog.db{suffix}"
            path.touch(0o644)
            os.chown(path, BOB.uid, TEAM)
        check(run(ANN, "ls"))
        refused = run(ANN, "tag", "team/a", "prod")
        assert refused.exit_code == 4
        assert "catalog.db-wal belongs to user 54302" in refused.stderr

    def test_a_registry_on_a_read_only_mount_is_read(self, run: Run, square: Path, home: Path):
        local_registry = square / "mounted"
        local_registry.mkdir()
        if subprocess.run(["mount", "--bind", home, local_registry], check=False).returncode:
            pytest.skip("nothing can be mounted here")
        try:
            subprocess.run(["mount", "-o", "remount,ro,bind", local_registry], check=True)
            for person in (ANN, EVE):
                self.on_the_mount(run, person, local_registry, square)
            self.write_and_die(home, "UPDATE adapters SET name = 'b'")
            for person in (ANN, EVE):
                assert "team/b" in check(run(person, "ls", LOREG_HOME=local_registry)).stdout
        finally:
            subprocess.run(["umount", local_registry], check=True)

    def on_the_mount(self, run: Run, person: Person, local_registry: Path, square: Path) -> None:
        assert "team/a" in check(run(person, "ls", LOREG_HOME=local_registry)).stdout
        mine = folder_of(person, square / f"of-{person.uid}", 0o755)
        check(run(person, "pull", "team/a", mine / "a", LOREG_HOME=local_registry))
        refused = run(person, "push", square / "news", "team/b", LOREG_HOME=local_registry)
        assert refused.exit_code == 4

    def test_a_schema_of_before_is_named_and_not_upgraded_by_a_reader(self, run: Run, square: Path, home: Path):
        self.write_and_die(home, "UPDATE alembic_version SET version_num = '0001'")
        refused = run(EVE, "ls")
        assert refused.exit_code == 1
        assert "has schema 0001" in refused.stderr
        assert "loreg db upgrade" in refused.stderr

    def write_and_die(self, home: Path, statement: str) -> None:
        """As Ann, leaving -wal and -shm as a kill does."""
        write(home / "catalog.db", statement, "import os; os._exit(0)")
        assert (home / "catalog.db-wal").exists()


def test_many_write_and_read_at_once_and_none_is_refused(crowd, square: Path):
    home = folder_of(ANN, square / "home", 0o2775, TEAM)
    one, two, three = (runner(people, home) for people in crowd)
    check(one(ANN, "push", square / "news", "team/a"))
    outcomes = all_at_once(
        [
            lambda: one(ANN, "tag", "team/a", "ann", times=20, umask=0o077),
            lambda: two(BOB, "tag", "team/a", "bob", times=20, umask=0o077),
            lambda: three(EVE, "ls", times=40),
        ]
    )
    for outcome in outcomes:
        check(outcome)
    assert "ann → v1, bob → v1" in check(three(EVE, "ls")).stdout


class TestInOneProcess:
    """A reader that lives long, beside writers who come and go."""

    @pytest.fixture
    def database(self, tmp_path: Path) -> Path:
        with connect(home=str(tmp_path)) as registry:
            registry.push(NEWS, "news")
        return tmp_path / "catalog.db"

    @pytest.fixture
    def reader(self, database: Path, monkeypatch) -> Iterator[Catalog]:
        """A catalog of a process that may not write the database: root may, whatever its permissions."""
        monkeypatch.setattr(sqlite, "_why_only_read", lambda files: sqlite._ReadOnly("it is not yours", "ask"))
        catalog = Catalog(f"sqlite:///{database}")
        yield catalog
        catalog.close()

    def names(self, reader: Catalog) -> list[str]:
        with reader.read() as tx:
            return [entry.adapter.name for entry in list_adapters(tx, 10, None).items]

    def test_it_sees_what_was_written_meanwhile(self, reader: Catalog, database: Path):
        assert self.names(reader) == ["news"]
        for name in ("a", "b", "c"):
            write(database, f"UPDATE adapters SET name = '{name}'")
            assert self.names(reader) == [name]

    def test_it_goes_on_while_another_writes(self, reader: Catalog, database: Path):
        with reader.read() as tx:
            write(database, "UPDATE adapters SET name = 'a'")
            assert [entry.adapter.name for entry in list_adapters(tx, 10, None).items] == ["news"]
        assert self.names(reader) == ["a"]

    def test_what_may_be_partly_old_and_partly_new_is_not_given_out(self, reader: Catalog, database: Path):
        with pytest.raises(UnavailableError, match="was written while it was read"), reader.read():
            write(database, "UPDATE adapters SET name = 'a'", "to.execute('PRAGMA wal_checkpoint')")
        assert self.names(reader) == ["a"]

    def test_a_writer_who_closes_last_loses_nothing_when_a_reader_of_the_process_had_closed(
        self, reader: Catalog, database: Path
    ):
        """Whoever closes any descriptor of a file drops all its locks that the process holds, SQLite's too."""
        write(database, "UPDATE adapters SET name = 'a'", "import os; os._exit(0)")
        with reader.read():
            other = Catalog(f"sqlite:///{database}")
            assert self.names(other) == ["a"]
            other.close()
            write(database, "UPDATE adapters SET name = 'b'")
        assert self.names(reader) == ["b"]
        reader.close()
        with contextlib.closing(connect_to(database)) as connection:
            assert connection.execute("SELECT name FROM adapters").fetchall() == [("b",)]
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]

    def test_it_writes_nothing(self, reader: Catalog):
        with pytest.raises(NotAllowedError, match="it is not yours"), reader.write(Access.superuser("x")):
            pass
