"""``configuration.md``: every setting, and what reads it from where."""

from __future__ import annotations

from loreg.settings import CHECK, KEYS, PROJECT_KEYS, RETENTION
from loreg_cli.main import cli
from reference_pages.markdown import code, sentence, table

_HEAD = """\
# Configuration

A setting is taken from the first of these that has it:

1. a flag of the command, e.g. `loreg --home DIR ls`, or an argument of `loreg.connect`;
2. the environment, `LOREG_` and the name in capitals;
3. the user's file, `config.toml` in the folder `loreg` where the system keeps settings: `~/.config/loreg` on Linux;
4. what `loreg login` left;
5. the default.

A project's file, the nearest `loreg.toml` from the working folder upwards, may set no more than what is asked of
adapters, which of their versions are kept, and who acts: files that came with a checkout lead nowhere. What it sets
goes before the user's file.
`loreg doctor` prints every setting in force and where it comes from.

## Settings

"""
#: What the command line's help does not say: the settings without a flag.
_WITHOUT_FLAG = {
    "token": "What `loreg login` or `loreg token create` made: sent to `endpoint`, and to nothing else.",
    "server_key": "The key of the servers that `loreg sync --server` tells what to load: sent to these alone.",
    "storage_public_endpoint": "The URL under which clients of the server reach its S3 store, where it is another one.",
}
_DEFAULTS = {
    "home": "where the system keeps data of programs: `~/.local/share/loreg` on Linux",
    "database_url": "`catalog.db`, SQLite, in `home`",
    "storage_url": "the folder `store` in `home`",
    "author": "your login",
}
_OTHER = {
    "LOREG_DEBUG": ("any command", "`1` is `--debug`: log to stderr what is asked of databases, stores and servers."),
    "LOREG_ADMIN_TOKEN": (
        "`loreg serve`",
        "The first token, which may do everything: `lrg_` and 43 letters. Without it `loreg serve --init` makes one.",
    ),
    "LOREG_REPAIR_FROM": (
        "`loreg worker`",
        "Places, with spaces between, that `loreg repair --from` may name through a server; as `--repair-from`.",
    ),
    "LOREG_WEBHOOK_NETWORK": (
        "`loreg serve`, `loreg worker`",
        "Networks, with spaces between, that webhooks may be in though they are not public; as `--webhook-network`.",
    ),
    "LOREG_BACKUP_TO": (
        "`loreg worker`",
        "Places, with spaces between, that `loreg backup` may name through a server; as `--backup-to`.",
    ),
    "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, …": (
        "an S3 store",
        "Credentials as boto3 finds them; a key in `storage_url` is refused.",
    ),
    "PGPASSWORD, PGREQUIREAUTH, …": ("PostgreSQL", "What libpq reads; a password need not stand in `database_url`."),
}


def render() -> dict[str, str]:
    """Return the page of settings by its path. Fails for a setting of which nothing is said."""
    settings = table(["Setting", "What it is", "Flag and variable", "Default"], [_row(key) for key in KEYS])
    project = ", ".join(code(f"[{key}]" if key in (CHECK, RETENTION) else key) for key in PROJECT_KEYS)
    other = table(
        ["Variable", "Read by", "What it does"], [(_list_names(names), *rest) for names, rest in _OTHER.items()]
    )
    text = (
        f"{_HEAD}{settings}\nA project's `loreg.toml` may set {project}: the tables are [what a team asks]"
        "(files.md#a-teams-policy) and [which versions are kept](files.md#which-versions-are-kept).\n\n"
        f"## Other variables of the environment\n\n{other}"
    )
    return {"configuration.md": text}


def _row(key: str) -> tuple[str, str, str, str]:
    flags = {option.name: option for option in cli.params}
    option = flags.get(key)
    about = _WITHOUT_FLAG[key] if option is None else sentence(option.help.partition(" [env:")[0])
    flag = f"{code(option.opts[0])} <br>" if option is not None else ""
    return code(key), about, flag + code(f"LOREG_{key.upper()}"), _DEFAULTS.get(key, "none")


def _list_names(names: str) -> str:
    return ", ".join(name if name == "…" else code(name) for name in names.split(", "))
