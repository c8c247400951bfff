"""Resolve every setting: flag > ``LOREG_*`` environment > user file > what ``loreg login`` left > default.

Only these sources, which are the user's own, decide where requests and secrets go. A project's ``loreg.toml`` comes
with files that anybody may have written: it may set only what is asked of adapters, which versions are kept (nothing
goes before somebody was asked), which pulls are recorded, and who acts.
"""

from __future__ import annotations

import getpass
import os
import re
import shlex
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import platformdirs

from loreg import credentials
from loreg.errors import UsageError
from loreg.file_modes import HAS_OWNERS

#: The table of what a team asks of adapters; ``checking.policy`` reads it.
CHECK = "check"
#: The table of which versions are kept; ``workspace.retention`` reads it.
RETENTION = "retention"
#: The table of what is recorded beside changes; ``local.audit`` reads it.
AUDIT = "audit"
_TABLES = (CHECK, RETENTION, AUDIT)
KEYS = (
    "home",
    "database_url",
    "storage_url",
    "storage_endpoint",
    "storage_public_endpoint",
    "endpoint",
    "token",
    "server_key",
    "author",
)
#: All keys that a project's file may set.
PROJECT_KEYS = (*_TABLES, "author")
_FLAG = "flag"
_ENVIRONMENT = "environment"
# Keys that name a registry on this machine. ``home`` does so only as a flag: else it is also where caches lie, those of
# a server's clients too.
_LOCAL = ("database_url", "storage_url")
_LOCAL_FLAGS = ("home", "database_url", "storage_url", "storage_endpoint")
# Userinfo without a password is a user's name in a database's URL; in others it is as often a key.
_URL = re.compile(
    r"(?P<scheme>[\w+.-]+://)(?P<user>[^:/?#@]*(?::[^/?#@]*)?@)?(?P<place>[^?#@=]*)(?:[?#].*)?", re.DOTALL
)


@dataclass(frozen=True)
class Settings:
    """The settings in force; ``origin`` says where each was found, ``notes`` what was ignored and why.

    With ``endpoint`` a server is asked, with ``token``; else the catalog and store directly. A server sends its clients
    to ``storage_public_endpoint`` where they reach its store under another URL. ``server_key`` is the key of servers
    that are told what to load. ``check``, ``retention`` and ``audit`` are the tables as they are in the file.
    """

    home: Path
    database_url: str = field(repr=False)
    storage_url: str = field(repr=False)
    storage_endpoint: str = field(repr=False)
    storage_public_endpoint: str = field(repr=False)
    endpoint: str = field(repr=False)
    token: str = field(repr=False)
    server_key: str = field(repr=False)
    author: str
    check: Mapping[str, Any]
    retention: Mapping[str, Any]
    origin: Mapping[str, str]
    notes: tuple[str, ...] = ()
    audit: Mapping[str, Any] = field(default_factory=dict)


class _Layer(msgspec.Struct, frozen=True):
    """One source of settings: its name and the values in it."""

    name: str
    values: Mapping[str, Any]

    def has(self, *keys: str) -> bool:
        return any(self.values.get(key) for key in keys)

    @property
    def is_for_this_command(self) -> bool:
        """Whether it is set for this one command."""
        return self.name in (_FLAG, _ENVIRONMENT)

    @property
    def names_local(self) -> bool:
        """Whether it names a catalog or a store that this machine reaches itself."""
        return self.has(*(_LOCAL_FLAGS if self.name == _FLAG else _LOCAL))


def load(flags: Mapping[str, str | None], environment: Mapping[str, str], folder: Path | None = None) -> Settings:
    """Resolve every setting. ``folder`` is where the search for ``loreg.toml`` starts, upwards.

    Raises UsageError if a file is not valid TOML, has an unknown key or a value that is not text; if flags name both a
    server and a registry on this machine; and if a project's file says where requests go and the user does not.
    """
    own_layers = _own_layers(flags, environment)
    values, origin = _resolve(own_layers)
    project, notes = _project_layer(folder or Path.cwd())
    if project is not None:
        notes += _check_ignored_keys(
            project, values, has_chosen=any(layer.has("endpoint", "home", *_LOCAL) for layer in own_layers)
        )
        stronger = [
            layer for layer in own_layers if layer.is_for_this_command
        ]  # a project's file goes before the user's
        for key in PROJECT_KEYS:
            if project.has(key) and not any(layer.has(key) for layer in stronger):
                values[key], origin[key] = project.values[key], project.name
    return Settings(
        **{key: values[key] for key in KEYS},
        check=values.get(CHECK) or {},
        retention=values.get(RETENTION) or {},
        origin={key: origin.get(key, "default") for key in (*KEYS, *_TABLES)},
        notes=tuple(notes),
        audit=values.get(AUDIT) or {},
    )


def mask_url(url: str) -> str:
    """Return a URL for people to read: without password and query, and cut shorter where these cannot be told apart."""
    if url.startswith("sqlite:///"):
        return url
    if "://" not in url:  # a scheme was forgotten, or it is a folder
        userinfo, at, place = url.partition("@")
        return f"***@{place}" if at and ":" in userinfo and "/" not in userinfo else url
    match = _URL.fullmatch(url)
    if match is None:
        return f"{url.partition('://')[0]}://…"
    user, colon, _ = (match["user"] or "").rstrip("@").partition(":")
    if match["user"] and not match["scheme"].startswith("postgres"):
        user, colon = "***", ""
    userinfo = f"{user}{':***' if colon else ''}@" if match["user"] else ""
    return f"{match['scheme']}{userinfo}{match['place']}"


def _own_layers(flags: Mapping[str, str | None], environment: Mapping[str, str]) -> list[_Layer]:
    """Return the user's own sources, the strongest first."""
    user_file = platformdirs.user_config_path("loreg") / "config.toml"
    logged_in, token = credentials.read()
    return [
        _Layer(_FLAG, flags),
        _Layer(_ENVIRONMENT, {key: environment.get(f"LOREG_{key.upper()}") for key in KEYS}),
        _Layer(str(user_file), _read(user_file) if user_file.is_file() else {}),
        _Layer(str(credentials.file()), {"endpoint": logged_in, "token": token}),
    ]


def _resolve(layers: Sequence[_Layer]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return every setting that these layers and the defaults give, and the origin of those from a layer."""
    values: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for key in (*KEYS, *_TABLES):
        layer = next((layer for layer in layers if layer.has(key) and _is_in_force(layer, key, layers, values)), None)
        if layer is not None:
            values[key], origin[key] = layer.values[key], layer.name
    home = Path(values.get("home") or platformdirs.user_data_path("loreg")).expanduser().absolute()
    defaults = {"database_url": f"sqlite:///{home / 'catalog.db'}", "storage_url": str(home / "store")}
    author = (values.get("author") or _login_name()).encode(errors="replace").decode()[:128]
    endpoint = (values.get("endpoint") or "").rstrip("/")
    settings = {**dict.fromkeys(KEYS, ""), **defaults, **values, "home": home, "author": author, "endpoint": endpoint}
    return settings, origin


def _is_in_force(layer: _Layer, key: str, layers: Sequence[_Layer], values: Mapping[str, Any]) -> bool:
    """Return whether the layer's value of ``key`` holds beside what else is set; no stronger layer has one."""
    stronger = layers[: layers.index(layer)]
    if key == "endpoint":
        if layer.name == _FLAG and layer.names_local:
            raise UsageError(
                "a server and a registry on this machine are named at once: an endpoint goes with no home, database or "
                "store",
                hint="name one of the two: --endpoint, or --home",
            )
        return not any(other.names_local for other in stronger)
    if key in _LOCAL:  # --home replaces catalog and store of all but flags
        return layer.name == _FLAG or not layers[0].has("home")
    if key == "token":  # one in a file is for the endpoint in the same file
        endpoint = values.get("endpoint", "").rstrip("/")
        return bool(endpoint) and (
            layer.is_for_this_command or (layer.values.get("endpoint") or "").rstrip("/") == endpoint
        )
    return True


def _project_layer(folder: Path) -> tuple[_Layer | None, list[str]]:
    """Return the nearest ``loreg.toml`` that is this user's, and notes on those that are not."""
    notes = []
    for parent in (folder, *folder.parents):
        path = parent / "loreg.toml"
        if not os.path.isfile(path):  # noqa: PTH113  Path.is_file raises for folders that may not be searched
            continue
        if owner := _other_owner(path):
            notes.append(f"{path} is ignored, for it belongs to {owner}: chown it if what it asks for is to hold")
            continue
        return _Layer(str(path), _read(path)), notes
    return None, notes


def _other_owner(path: Path) -> str:
    """Return who owns the file or the link to it; empty for this user, and for root, whom nothing keeps out anyhow."""
    if not HAS_OWNERS:
        return ""
    import pwd

    own_ids = {0, os.geteuid()}
    if os.geteuid() == 0 and (sudo_uid := os.environ.get("SUDO_UID", "")).isdecimal():
        own_ids.add(int(sudo_uid))
    for owner in (path.lstat().st_uid, path.stat().st_uid):
        if owner not in own_ids:
            try:
                return pwd.getpwuid(owner).pw_name
            except KeyError:
                return f"user {owner}"
    return ""


def _check_ignored_keys(project: _Layer, values: Mapping[str, Any], *, has_chosen: bool) -> list[str]:
    """Return a note on keys of a project's file that it may not set; raise UsageError unless the user ``has_chosen``.

    A user who has chosen where requests go may neither be led elsewhere nor stopped by files of others. For one who has
    not, the file may have been the only thing to say where the registry is: going on could push to another.
    """
    ignored_keys = [key for key in KEYS if key not in PROJECT_KEYS and _would_change(project, key, values)]
    if not ignored_keys:
        return []
    keys = " and ".join(repr(key) for key in ignored_keys)
    user_file = platformdirs.user_config_path("loreg") / "config.toml"
    if has_chosen:
        return [f"{project.name} sets {keys}, which is not obeyed: a project's file leads nowhere"]
    default = shlex.quote(str(values["home"]))
    raise UsageError(
        f"{project.name} sets {keys}, which only a flag, the environment or {user_file} may: a project's file leads "
        "nowhere",
        hint=f"export LOREG_HOME={default} goes on without it; to obey it, move that to {user_file}",
    )


def _would_change(project: _Layer, key: str, values: Mapping[str, Any]) -> bool:
    value = project.values.get(key) or ""
    return bool(value) and value.rstrip("/") != str(values[key]).rstrip("/")


def _read(path: Path) -> dict[str, Any]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}", hint=f"mend {path}") from error
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", hint=f"mend {path}") from error
    for key, value in document.items():
        if key in _TABLES and isinstance(value, dict):
            continue
        if key not in KEYS or not isinstance(value, str) or "\x00" in value:
            raise UsageError(
                f"{path}: {key!r} is not a setting or not text; expected one of {', '.join(KEYS)}",
                hint="loreg doctor shows every setting and where it comes from",
            )
    return {
        key: _resolve_path(path, value) if key in ("home", "storage_url") else value for key, value in document.items()
    }


def _resolve_path(file: Path, value: str) -> str:
    """Resolve a relative path in a settings file against the folder of that file; leave URLs as they are."""
    return value if "://" in value else str(file.parent / Path(value).expanduser())


def _login_name() -> str:
    try:
        return getpass.getuser()
    except (ImportError, KeyError, OSError):
        return "unknown"
