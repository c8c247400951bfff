"""Mistakes in folders, files, servers, and in the order of arguments."""

from __future__ import annotations

import fnmatch
import os
import re
import shlex
from pathlib import Path

from loreg.refs import is_path
from loreg.suggestions import suggest
from loreg_cli.corrections.call import Call

#: The commands whose first argument is a folder, or whose second is, and the other one a name.
_FOLDER_FIRST = ("push",)
_FOLDER_SECOND = ("pull", "reproduce")


def exchange_arguments(call: Call) -> list[str] | None:
    """Return the words with two arguments in the other order, where they can only be meant so."""
    if len(call.arguments) != 2:
        return None
    (one, first), (other, second) = zip(call.arguments, call.texts, strict=True)
    exchanged = call.replace({one: [second], other: [first]})
    if call.name in _FOLDER_FIRST and Path(second).expanduser().is_dir() and not Path(first).expanduser().is_dir():
        return exchanged
    if call.name in _FOLDER_SECOND and is_path(first) and not is_path(second):
        return exchanged
    if call.name == "tag" and ("/" in second or ":" in second) and not re.search("[/:]", first):
        return exchanged
    return None


def take_another_folder(call: Call) -> list[str] | None:
    """Return the words with a folder that is not there yet, where something lies in the one that was named."""
    if call.name not in _FOLDER_SECOND or not call.texts:
        return None
    folder = call.texts[1] if len(call.texts) > 1 else f"./{re.split('[:@]', call.texts[0])[0].rpartition('/')[2]}"
    number = next(number for number in range(2, 1000) if not Path(f"{folder.rstrip('/')}-{number}").exists())
    words = [f"{folder.rstrip('/')}-{number}"]
    return call.replace({call.arguments[1]: words}) if len(call.texts) > 1 else [*call.words, *words]


def name_after_the_folder(call: Call) -> list[str] | None:
    """Return the words of a push with the name of the folder, where no name was given."""
    if call.name != "push" or len(call.texts) != 1 or not Path(call.texts[0]).expanduser().is_dir():
        return None
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(call.texts[0]).expanduser().resolve().name).strip("._-")
    return call.replace({call.arguments[0]: [call.texts[0], name]}) if name else None


def write_as_path(call: Call) -> list[str] | None:
    """Return the words with ``./`` before a folder of that name, where the registry has no such ref."""
    takes_folders = call.name in (
        "check",
        "merge",
        "sweep",
        "rerank",
        "compare",
        "bake",
        "export",
        "base match",
        "identify",
    )
    if not takes_folders:
        return None
    missing = re.search(r"there is no adapter '([^']+)'|invalid adapter name '([^']+)'", call.message)
    for i in call.arguments:
        word = call.words[i]
        if missing and word.rstrip("/") == (missing[1] or missing[2]).rstrip("/") and Path(word).is_dir():
            return call.replace({i: [f"./{word}"]})
    return None


def name_the_folder(call: Call) -> list[str] | None:
    """Return the words with the adapter that lies below a folder, or with the model that a folder is."""
    message = call.message.partition(". Hint:")[0]
    if call.name == "push" and message.endswith("does not exist; expected the folder of an adapter"):
        folder = _closest_folder(call.texts[0])
        return call.replace({call.arguments[0]: [folder]}) if folder else ["push", "--help"]
    hint = getattr(call.error, "hint", "")
    match shlex.split(hint) if hint.startswith(("loreg check ", "loreg import ", "loreg base add ")) else []:
        case ["loreg", "import", run] if call.name == "push" and Path(call.texts[0]).expanduser() == Path(run):
            return [*call.words, "--checkpoint", "last"]
        case ["loreg", "check" | "import", meant, *_]:
            for i in call.arguments:
                path = Path(call.words[i]).expanduser()
                if path in Path(meant).parents:
                    return call.replace({i: [meant]})
                if path == Path(meant) and (below := re.search(r"lies? in it: ([^,]+)", message)):
                    return call.replace({i: [f"{meant}/{below[1]}"]})
        case ["loreg", "base", "add", _] if call.name == "push":
            return ["base", "add", call.texts[0]]
    if call.name == "push" and "has no evaluation" in message:
        return call.replace_word("best", "last")
    return None


def take_the_folder_of_a_file(call: Call) -> list[str] | None:
    """Return the words with the folder of an adapter instead of one of its files."""
    for i in call.arguments:
        path = Path(call.words[i]).expanduser()
        if path.is_file() and (path.parent / "adapter_config.json").is_file():
            parent = Path(call.words[i]).parent.as_posix()
            return call.replace({i: [parent if is_path(parent) else f"./{parent}"]})
    return None


def name_the_ref(call: Call) -> list[str] | None:
    """Return what can be done with a folder where a ref was asked for, and the other way round."""
    if (
        call.name in ("show", "log", "lineage", "ls", "open")
        and call.texts
        and Path(call.texts[0]).expanduser().is_dir()
    ):
        text = call.texts[0]
        return ["check", text if is_path(text) else f"./{text}"]
    return None


def write_scheme(call: Call) -> list[str] | None:
    """Return the words with the server's URL as it answers: with its scheme, or with the other one."""
    suggestion = getattr(call.error, "suggestion", None)
    if suggestion is None or "://" not in suggestion.meant:
        return None
    if (words := call.replace_word(*suggestion)) is not None:
        return words
    call.environment.append(f"LOREG_ENDPOINT={suggestion.meant}")
    return [*call.words]


def log_in_there(call: Call) -> list[str] | None:
    """Return the login to the server in force, where it knows nobody."""
    if call.name == "login":
        return ["login", *call.texts]
    from loreg.settings import load, mask_url

    endpoint = load(call.settings, os.environ).endpoint
    return ["login", mask_url(endpoint)] if endpoint else None


def _closest_folder(text: str) -> str | None:
    """Return the one folder that a pattern matches, or else the one beside it whose name is most like it."""
    name, beside = Path(text).name, Path(text).expanduser().parent
    folders = [path.name for path in beside.iterdir() if path.is_dir()] if beside.is_dir() else []
    matching = fnmatch.filter(folders, name)
    close = suggest(name, folders)
    meant = matching[0] if len(matching) == 1 else close.meant if close else ""
    return text[: -len(name)] + meant if meant and text.endswith(name) else None
