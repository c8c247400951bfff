"""Where requests and secrets go is the person's own word: no file of somebody else leads them, or has them shown."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import platformdirs
import pytest
from sqlalchemy import text

from deployments import Deployment, Loreg, command_line
from listeners import CLEARTEXT, MD5, http_listener, postgres_listener
from live_server import live_server
from loreg.catalog.engine import open_engine
from loreg.errors import LoregError, UnavailableError, UsageError
from loreg.registry import connect
from loreg.remote.http import Server
from loreg.settings import load, mask_url
from os_users import commons
from server.conftest import Guarded, guarded, guarded_folder  # noqa: F401  fixtures

TOKEN = "lrg_" + "t" * 43
OTHER = "lrg_" + "o" * 43
PASSWORD = "S3CRET-PW"
LEADING = ("home", "database_url", "storage_url", "storage_endpoint", "storage_public_endpoint", "endpoint", "token")


def project(folder: Path, **settings: str) -> Path:
    path = folder / "loreg.toml"
    path.write_text("".join(f"{key} = '{value}'\n" for key, value in settings.items()))
    return path


def user_file(**settings: str) -> Path:
    folder = platformdirs.user_config_path("loreg")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.toml"
    path.write_text("".join(f"{key} = '{value}'\n" for key, value in settings.items()))
    return path


def logged_in(endpoint: str, token: str = TOKEN) -> None:
    folder = platformdirs.user_config_path("loreg")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "credentials.toml").write_text(f'endpoint = "{endpoint}"\ntoken = "{token}"\n')


class TestAProjectsFile:
    def test_a_projects_file_leads_no_token_of_the_environment_anywhere(self, tmp_path: Path):
        with http_listener() as stranger:
            project(tmp_path, endpoint=f"http://127.0.0.1:{stranger.port}")
            done = command_line({"LOREG_TOKEN": TOKEN})("ls")
        assert stranger.heard == b""
        assert (done.exit_code, done.stdout) == (2, "")
        assert "'endpoint'" in done.stderr
        assert str(tmp_path / "loreg.toml") in done.stderr

    def test_a_projects_file_leads_no_token_of_the_users_file_anywhere(self, tmp_path: Path):
        with http_listener() as stranger, http_listener() as own:
            user_file(endpoint=f"http://127.0.0.1:{own.port}", token=TOKEN)
            project(tmp_path, endpoint=f"http://127.0.0.1:{stranger.port}")
            command_line({})("ls")
        assert stranger.heard == b""
        assert TOKEN.encode() in own.heard

    @pytest.mark.parametrize("asks", [CLEARTEXT, MD5], ids=["in clear", "as MD5"])
    def test_a_projects_file_leads_no_database_password_anywhere(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asks: bytes
    ):
        monkeypatch.setenv("PGPASSWORD", PASSWORD)
        with postgres_listener(asks) as stranger:
            project(tmp_path, database_url=f"postgresql://u@127.0.0.1:{stranger.port}/x")
            command_line({"LOREG_HOME": str(tmp_path / "home")})("ls")
            command_line({})("ls")
        assert stranger.heard == b""

    def test_a_projects_file_leads_no_key_of_the_store_anywhere(self, tmp_path: Path):
        with http_listener() as stranger:
            project(tmp_path, storage_url="s3://b/x", storage_endpoint=f"http://127.0.0.1:{stranger.port}")
            for environment in ({}, {"LOREG_HOME": str(tmp_path / "home")}):
                command_line(environment)("doctor")
            assert load({}, {"LOREG_STORAGE_URL": "s3://mine/x"}).storage_endpoint == ""
        assert stranger.heard == b""

    def test_a_projects_file_makes_no_catalog_anywhere(self, tmp_path: Path):
        project(tmp_path, home=str(tmp_path / "theirs"))
        assert command_line({})("ls").exit_code == 2
        assert command_line({"LOREG_HOME": str(tmp_path / "mine")})("ls").exit_code == 0
        assert not (tmp_path / "theirs").exists()
        assert (tmp_path / "mine").exists()

    @pytest.mark.parametrize("key", LEADING)
    def test_no_key_that_leads_somewhere_is_taken_from_a_projects_file(self, tmp_path: Path, key: str):
        path = project(tmp_path, **{key: "https://stranger.example/x"})
        with pytest.raises(UsageError, match=f"sets '{key}'") as refused:
            load({}, {})
        assert str(path) in refused.value.message
        assert "config.toml" in refused.value.hint
        settings = load({}, {"LOREG_HOME": "/mine"})
        assert "stranger" not in "".join(str(getattr(settings, name)) for name in LEADING)
        (note,) = settings.notes
        assert str(path) in note
        assert key in note

    def test_the_hint_of_the_refusal_is_a_way_on(self, tmp_path: Path):
        project(tmp_path, database_url="postgresql://127.0.0.1:9/x")
        refused = command_line({})("ls")
        name, _, value = refused.stderr.partition("export ")[2].split(" ")[0].partition("=")
        went_on = command_line({name: value})("ls")
        assert went_on.exit_code == 0
        assert "note: " in went_on.stderr
        assert "'database_url', which is not obeyed" in went_on.stderr

    def test_who_says_where_to_is_not_stopped_by_a_projects_file(self, tmp_path: Path):
        project(tmp_path, endpoint="http://127.0.0.1:9", token=OTHER, storage_url="s3://theirs/x")
        for flags, environment in (
            ({"home": str(tmp_path / "h")}, {}),
            ({}, {"LOREG_DATABASE_URL": "sqlite:////tmp/x.db"}),
            ({}, {"LOREG_ENDPOINT": "http://mine"}),
        ):
            assert len(load(flags, environment).notes) == 1
        logged_in("http://mine")
        assert load({}, {}).endpoint == "http://mine"

    def test_a_projects_file_that_says_what_holds_anyhow_is_no_news(self, tmp_path: Path):
        logged_in("http://mine")
        project(tmp_path, endpoint="http://mine/")
        assert load({}, {}).notes == ()

    def test_a_projects_file_still_says_what_is_asked_of_adapters_and_who_acts(self, tmp_path: Path):
        path = tmp_path / "loreg.toml"
        path.write_text("author = 'ci'\n[check]\nmax_rank = 4\n")
        settings = load({}, {})
        assert (settings.author, dict(settings.check), settings.notes) == ("ci", {"max_rank": 4}, ())
        assert settings.origin["check"] == str(path)

    def test_the_library_says_what_it_passes_over(self, tmp_path: Path):
        project(tmp_path, endpoint="http://127.0.0.1:9")
        with pytest.warns(UserWarning, match="'endpoint', which is not obeyed"):
            connect(home=str(tmp_path / "home")).close()

    def test_a_file_that_nests_too_deep_is_one_line(self, tmp_path: Path, local: Loreg):
        (tmp_path / "loreg.toml").write_text("check = " + "[" * 100_000)
        done = local("ls")
        assert done.exit_code == 2
        assert "is not valid TOML" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
class TestAnotherUsersFile:
    NOBODY = 65534

    def test_a_file_that_another_user_owns_is_ignored_with_a_word(self, tmp_path: Path, local: Loreg):
        path = project(tmp_path, endpoint="http://127.0.0.1:9")
        os.chown(path, self.NOBODY, -1)
        deep = tmp_path / "one" / "two" / "three"
        deep.mkdir(parents=True)
        settings = load({}, {}, deep)
        assert settings.endpoint == ""
        (note,) = settings.notes
        assert f"{path} is ignored, for it belongs to nobody" in note
        assert f"note: {path} is ignored" in local("ls").stderr

    def test_a_check_that_another_user_wrote_is_not_asked_for(self, tmp_path: Path):
        path = tmp_path / "loreg.toml"
        path.write_text("[check]\nmax_rank = 1\n")
        os.chown(path, self.NOBODY, -1)
        assert load({}, {}).check == {}

    def test_a_file_that_another_user_owns_hides_none_above(self, tmp_path: Path):
        (tmp_path / "loreg.toml").write_text("author = 'mine'\n")
        below = tmp_path / "below"
        below.mkdir()
        os.chown(project(below, author="theirs"), self.NOBODY, -1)
        assert load({}, {}, below).author == "mine"

    def test_a_link_that_another_user_made_is_not_followed(self, tmp_path: Path):
        (tmp_path / "elsewhere.toml").write_text("author = 'other'\n")
        link = tmp_path / "loreg.toml"
        link.symlink_to("elsewhere.toml")
        os.chown(link, self.NOBODY, -1, follow_symlinks=False)
        settings = load({}, {"LOREG_AUTHOR": "ada"})
        assert settings.author == "ada"
        assert len(settings.notes) == 1

    def test_what_root_wrote_holds_for_everybody_and_what_who_runs_sudo_wrote_for_root(self):
        code = """
import os, sys
from loreg.settings import load
os.seteuid(int(sys.argv[1]))
print(load({}, {"LOREG_AUTHOR": ""}).author)
"""

        def author(uid: int, **environment: str) -> str:
            environment = {**os.environ, "XDG_CONFIG_HOME": str(folder / "config"), **environment}
            command = [sys.executable, "-c", code, str(uid)]
            return subprocess.run(
                command, env=environment, cwd=folder, capture_output=True, text=True, check=True
            ).stdout.strip()

        with commons() as folder:
            (folder / "loreg.toml").write_text("author = 'project'\n")
            assert author(0) == "project"
            os.chown(folder / "loreg.toml", self.NOBODY, -1)
            assert author(self.NOBODY) == "project"
            assert author(0) != "project"
            assert author(0, SUDO_UID=str(self.NOBODY)) == "project"


FLAGS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "--home": {"home": "/f"},
    "--database-url": {"database_url": "postgresql://f/x"},
    "--storage-url": {"storage_url": "/f/store"},
    "--storage-endpoint": {"storage_endpoint": "http://f"},
    "--endpoint": {"endpoint": "http://f/"},
    "--home and --endpoint": {"home": "/f", "endpoint": "http://f"},
    "--database-url and --endpoint": {"database_url": "postgresql://f/x", "endpoint": "http://f"},
    "--storage-url and --endpoint": {"storage_url": "/f/store", "endpoint": "http://f"},
}
ENVIRONMENTS: dict[str, dict[str, str]] = {
    "nothing": {},
    "home": {"LOREG_HOME": "/e"},
    "database": {"LOREG_DATABASE_URL": "postgresql://e/x"},
    "store": {"LOREG_STORAGE_URL": "/e/store"},
    "endpoint": {"LOREG_ENDPOINT": "http://e"},
    "database and endpoint": {"LOREG_DATABASE_URL": "postgresql://e/x", "LOREG_ENDPOINT": "http://e"},
}
FILES: dict[str, dict[str, str]] = {
    "nothing": {},
    "home": {"home": "/u"},
    "database": {"database_url": "postgresql://u/x"},
    "endpoint": {"endpoint": "http://u"},
}
HERE, REFUSED = "here", "refused"
#: What is asked, by what flags, environment, user's file and login name; the first row that fits. None fits anything.
PLACES: list[tuple[str | None, str | None, str | None, bool | None, str]] = [
    ("--home and --endpoint", None, None, None, REFUSED),
    ("--database-url and --endpoint", None, None, None, REFUSED),
    ("--storage-url and --endpoint", None, None, None, REFUSED),
    ("--endpoint", None, None, None, "http://f"),
    ("--home", None, None, None, HERE),
    ("--database-url", None, None, None, HERE),
    ("--storage-url", None, None, None, HERE),
    ("--storage-endpoint", None, None, None, HERE),
    (None, "endpoint", None, None, "http://e"),
    (None, "database and endpoint", None, None, "http://e"),  # "instead of database and store"
    (None, "database", None, None, HERE),
    (None, "store", None, None, HERE),
    (None, None, "endpoint", None, "http://u"),  # a home outside of flags is where caches lie, too
    (None, None, "database", None, HERE),
    (None, None, None, True, "http://l"),
    (None, None, None, False, HERE),
]


@pytest.mark.parametrize("login", [False, True], ids=["", "logged in"])
@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("environment", ENVIRONMENTS)
@pytest.mark.parametrize("flags", FLAGS)
def test_what_is_said_nearer_decides_what_is_asked(flags: str, environment: str, file: str, login: bool):
    user_file(**FILES[file])
    if login:
        logged_in("http://l")
    levels = (flags, environment, file, login)
    expected = next(row[-1] for row in PLACES if all(a is None or a == b for a, b in zip(row, levels, strict=False)))
    if expected == REFUSED:
        with pytest.raises(UsageError, match="a server and a registry on this machine are named at once"):
            load(FLAGS[flags], ENVIRONMENTS[environment])
        return
    settings = load(FLAGS[flags], ENVIRONMENTS[environment])
    assert settings.endpoint == ("" if expected == HERE else expected)
    assert settings.token == (TOKEN if expected == "http://l" else "")
    if flags == "--home":
        assert (settings.database_url, settings.storage_url) == ("sqlite:////f/catalog.db", "/f/store")


def test_a_home_that_is_named_is_used_although_somebody_logged_in(tmp_path: Path):
    with http_listener() as server:
        logged_in(f"http://127.0.0.1:{server.port}")
        assert command_line({})("--home", tmp_path / "home", "ls").stderr == "nothing found\n"
        with connect(home=str(tmp_path / "home")) as registry:
            assert registry.adapters().items == ()
        assert server.heard == b""
        assert command_line({})("--home", tmp_path / "home", "--endpoint", "http://x", "ls").exit_code == 2


def test_who_logs_in_is_told_if_something_else_goes_before(tmp_path: Path):
    deployment = Deployment(f"sqlite:///{tmp_path}/c.db", str(tmp_path / "store"))
    with live_server(deployment) as endpoint:
        assert "not in force" not in command_line({})("login", endpoint, "--token", "").stderr
        done = command_line({"LOREG_DATABASE_URL": "sqlite:////x"})("login", endpoint, "--token", "")
    assert "not in force here, where database_url (environment) goes before it" in done.stderr


class TestTokens:
    """Flags and environment are said for this command; what lies in a file is for the endpoint beside it."""

    def test_a_token_of_the_users_file_goes_to_no_endpoint_of_the_environment(self):
        with http_listener() as other:
            user_file(endpoint="http://own.example", token=TOKEN)
            command_line({"LOREG_ENDPOINT": f"http://127.0.0.1:{other.port}"})("ls")
        assert other.heard
        assert TOKEN.encode() not in other.heard

    def test_a_token_of_login_goes_to_no_other_endpoint(self):
        with http_listener() as other:
            logged_in("http://own.example")
            command_line({})("--endpoint", f"http://127.0.0.1:{other.port}", "ls")
        assert other.heard
        assert TOKEN.encode() not in other.heard

    @pytest.mark.parametrize(
        ("flags", "environment", "file", "login", "expected"),
        [
            ({"endpoint": "http://f", "token": "F"}, {}, {}, "", "F"),
            ({"endpoint": "http://f"}, {"LOREG_TOKEN": "E"}, {}, "", "E"),
            ({"token": "F"}, {"LOREG_ENDPOINT": "http://e"}, {}, "", "F"),
            ({}, {"LOREG_ENDPOINT": "http://e", "LOREG_TOKEN": "E"}, {"endpoint": "http://u", "token": "U"}, "", "E"),
            ({}, {"LOREG_TOKEN": "E"}, {"endpoint": "http://u", "token": "U"}, "", "E"),
            ({}, {"LOREG_TOKEN": "E"}, {}, "http://l", "E"),
            ({}, {"LOREG_ENDPOINT": "http://e"}, {"endpoint": "http://u", "token": "U"}, "", ""),
            ({}, {"LOREG_ENDPOINT": "http://u/"}, {"endpoint": "http://u", "token": "U"}, "", "U"),
            ({}, {"LOREG_ENDPOINT": "http://e"}, {"token": "U"}, "", ""),
            ({}, {}, {"token": "U"}, "http://l", TOKEN),
            ({}, {}, {"endpoint": "http://u"}, "http://l", ""),
            ({}, {}, {"endpoint": "http://l"}, "http://l", TOKEN),
            ({"endpoint": "http://l"}, {}, {"endpoint": "http://u", "token": "U"}, "http://l", TOKEN),
            ({"home": "/f"}, {"LOREG_TOKEN": "E"}, {}, "http://l", ""),
        ],
    )
    def test_a_token_goes_to_the_endpoint_that_it_was_given_for(
        self, flags: dict, environment: dict, file: dict, login: str, expected: str
    ):
        user_file(**file)
        if login:
            logged_in(login)
        assert load(flags, environment).token == expected

    def test_no_url_that_a_server_names_gets_the_token(self):
        with http_listener() as other, http_listener() as own:
            server = Server(f"http://127.0.0.1:{own.port}", TOKEN, "ada")
            server.send_once("GET", f"HTTP://127.0.0.1:{other.port}/x", {})
            server.send_once("GET", "/x", {})
            server.close()
        assert TOKEN.encode() not in other.heard
        assert TOKEN.encode() in own.heard

    def test_settings_show_no_secret_when_they_are_printed(self):
        url = f"postgresql://u:{PASSWORD}@h/x"
        settings = load({"endpoint": "http://h", "token": TOKEN}, {"LOREG_DATABASE_URL": url})
        assert TOKEN not in repr(settings)
        assert PASSWORD not in repr(settings)


class TestDatabasePasswords:
    @pytest.mark.parametrize("asks", [CLEARTEXT, MD5], ids=["in clear", "as MD5"])
    @pytest.mark.parametrize("where", ["environment", "url", "query", "file"])
    def test_no_server_is_shown_the_password_in_clear(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asks: bytes, where: str
    ):
        with postgres_listener(asks) as server:
            at = f"127.0.0.1:{server.port}"
            url = f"postgresql://u@{at}/x"
            if where == "environment":
                monkeypatch.setenv("PGPASSWORD", PASSWORD)
            elif where == "file":
                passwords = tmp_path / "pgpass"
                passwords.write_text(f"127.0.0.1:{server.port}:x:u:{PASSWORD}\n")
                passwords.chmod(0o600)
                monkeypatch.setenv("PGPASSFILE", str(passwords))
            else:
                url = f"postgresql://u:{PASSWORD}@{at}/x" if where == "url" else f"{url}?password={PASSWORD}"
            done = command_line({"LOREG_DATABASE_URL": url})("ls")
        assert b"user\0u\0" in server.heard
        assert b"p\0\0\0" not in server.heard  # no PasswordMessage, in clear or hashed
        assert PASSWORD.encode() not in server.heard
        assert done.exit_code == 1
        assert "require_auth=password" in done.stderr
        assert PASSWORD not in done.stderr

    def test_who_says_so_shows_it(self):
        with postgres_listener() as server:
            url = f"postgresql://u:{PASSWORD}@127.0.0.1:{server.port}/x?require_auth=password"
            command_line({"LOREG_DATABASE_URL": url})("ls")
        assert PASSWORD.encode() in server.heard


URLS_WITH_PASSWORDS = [
    f"postgresql://u:{PASSWORD}@127.0.0.1:9/x",
    f"postgresql://127.0.0.1:9/x?user=u&password={PASSWORD}",
    f"postgresql://u@127.0.0.1:9/x?sslpassword={PASSWORD}",
    f"postgresql://u:a%2F{PASSWORD}@127.0.0.1:9/x",
    f"postgresql://u:a/{PASSWORD}@127.0.0.1:9/x",
    f"postgresql://u:a?{PASSWORD}@127.0.0.1:9/x",
    f"postgresql://u:a@{PASSWORD}@127.0.0.1:9/x",
    f"postgresql://u@127.0.0.1:9/x?password=a@{PASSWORD}",
    f"postgresql://127.0.0.1:9/x?password=a@{PASSWORD}",
    f"postgresql://u:{PASSWORD}@127.0.0.1:none/x",
    f"postgresql://u:{PASSWORD}@127.0.0.1:9/x?nonsense={PASSWORD}",
    f"postgresql://u:{PASSWORD}@127.0.0.1:9/x?service={PASSWORD}",
    f"postgresql://u:{PASSWORD}@127.0.0.1:9/host=h password={PASSWORD} x",
    f"postgresql://u:{PASSWORD}@[127.0.0.1/x",
    f"mysql://u:{PASSWORD}@127.0.0.1/x",
    f"u:{PASSWORD}@127.0.0.1",
]


@pytest.mark.parametrize("url", URLS_WITH_PASSWORDS)
def test_no_word_on_a_database_has_its_password(url: str):
    for command in ("ls", "doctor"):
        done = command_line({"LOREG_DATABASE_URL": url})(command)
        assert PASSWORD not in done.stdout + done.stderr
        assert done.exit_code in (1, 2)


@pytest.mark.parametrize(
    "settings",
    [
        {"LOREG_STORAGE_URL": f"s3://key:{PASSWORD}@b/x"},
        {"LOREG_STORAGE_URL": f"s3://key:a/{PASSWORD}@b/x"},
        {"LOREG_STORAGE_URL": f"ftp://key:{PASSWORD}@b/x"},
        {"LOREG_STORAGE_URL": f"s3://b/x?secret={PASSWORD}"},
        {"LOREG_STORAGE_URL": "s3://b/x", "LOREG_STORAGE_ENDPOINT": f"http://key:{PASSWORD}@127.0.0.1:9"},
        {"LOREG_STORAGE_URL": "s3://b/x", "LOREG_STORAGE_ENDPOINT": f"http://key:a/{PASSWORD}@127.0.0.1:9"},
        {"LOREG_STORAGE_URL": "s3://b/x", "LOREG_STORAGE_ENDPOINT": f"http://127.0.0.1:9?secret={PASSWORD}"},
        {"LOREG_STORAGE_URL": "s3://b/x", "LOREG_STORAGE_PUBLIC_ENDPOINT": f"http://k:{PASSWORD}@127.0.0.1:9"},
    ],
    ids=str,
)
def test_no_word_on_a_store_has_its_password(tmp_path: Path, settings: dict[str, str]):
    if settings["LOREG_STORAGE_URL"].endswith(PASSWORD):  # what follows the bucket is dropped, so that one works
        settings["LOREG_STORAGE_ENDPOINT"] = "http://127.0.0.1:9"
    for command in ("ls", "doctor"):
        done = command_line({"LOREG_HOME": str(tmp_path / "home"), **settings})(command)
        assert PASSWORD not in done.stdout + done.stderr


def test_no_word_on_a_server_has_the_password_of_its_url(tmp_path: Path):
    for endpoint in (f"http://u:{PASSWORD}@127.0.0.1:9", f"http://127.0.0.1:9?x={PASSWORD}", f"ftp://u:{PASSWORD}@h"):
        for command in (["ls"], ["doctor"], ["db", "upgrade"], ["login", endpoint, "--token", "x"]):
            done = command_line({"LOREG_ENDPOINT": endpoint})(*command)
            assert done.exit_code != 0
            assert PASSWORD not in done.stdout + done.stderr
    deployment = Deployment(f"sqlite:///{tmp_path}/c.db", str(tmp_path / "store"))
    with live_server(deployment) as endpoint:
        with_password = endpoint.replace("://", f"://u:{PASSWORD}@")
        done = command_line({})("login", with_password, "--token", "")
        assert done.exit_code == 0
        assert PASSWORD not in done.stdout + done.stderr
        assert PASSWORD not in command_line({})("doctor").stdout


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://ada:pw@h:5432/x?sslmode=require", "postgresql://ada:***@h:5432/x"),
        ("postgresql://ada@h/x", "postgresql://ada@h/x"),
        ("postgresql://ada@server:pw@h/x", "postgresql://…"),
        ("postgresql:///x?host=/run&password=pw", "postgresql:///x"),
        ("https://key@h/x", "https://***@h/x"),
        ("s3://b/p", "s3://b/p"),
        ("sqlite:////a?b/c@d.db", "sqlite:////a?b/c@d.db"),
        ("/folder@home", "/folder@home"),
    ],
)
def test_what_a_url_shows(url: str, shown: str):
    assert mask_url(url) == shown


ASKS: list[Callable[[httpx.Client], httpx.Response]] = [
    lambda http: http.get("/readyz"),
    lambda http: http.get("/api/v1/adapters"),
    lambda http: http.get("/api/v1/adapters", headers={"Authorization": f"Bearer {TOKEN}"}),
    lambda http: http.get("/api/models/team/news"),
    lambda http: http.get("/api/v1/search"),
]


@pytest.mark.parametrize("ask", ASKS)
def test_a_stranger_learns_nothing_of_a_database_that_is_down(
    tmp_path: Path, ask: Callable[[httpx.Client], httpx.Response], caplog: pytest.LogCaptureFixture
):
    url = f"postgresql://secretuser@127.0.0.1:9/secretname?password={PASSWORD}"
    with live_server(Deployment(url, str(tmp_path / "secretstore")), is_open=False) as endpoint:
        answer = ask(httpx.Client(base_url=endpoint))
    assert answer.status_code == 503
    shown = answer.text + str(answer.headers)
    for secret in (PASSWORD, "secret", "127.0.0.1:9", "postgresql", "port 9", "loreg doctor"):
        assert secret not in shown
    assert "secretuser" in caplog.text  # whoever runs the server does
    assert PASSWORD not in caplog.text


def test_a_stranger_is_told_ready_and_no_more(guarded_folder: Guarded):  # noqa: F811
    assert "SQLite" not in guarded_folder.http("anonymous").get("/readyz").text
    assert "SQLite" in guarded_folder.http("reader").get("/readyz").text


def test_a_stranger_learns_nothing_of_a_schema_that_is_wrong(guarded: Guarded):  # noqa: F811
    engine = open_engine(guarded.behind.settings.database_url)
    with engine.connect() as connection, connection.begin():
        connection.execute(text("DROP TABLE versions CASCADE"))
    engine.dispose()
    for path in ("/readyz", "/api/v1/search"):
        answer = guarded.http("anonymous").get(path)
        assert answer.status_code == 503
        assert "versions" not in answer.text
        assert "postgresql" not in answer.text
    with pytest.raises(LoregError, match="the server cannot work") as error:
        guarded.registry("root").context.store.check()
    assert isinstance(error.value, UnavailableError)
