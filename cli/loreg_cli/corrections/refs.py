"""Mistakes in refs, names and aliases: ``name@v2``, ``name/v2``, ``name v2``, spaces, slashes, URLs of the Hub."""

from __future__ import annotations

import re

from loreg.refs import is_path
from loreg_cli.corrections.call import Call

_VERSION = r"v?[1-9][0-9]*"
_HUB = re.compile(r"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/([\w.-]+/[\w.-]+).*|hf:(.+)")
_READING = ("show", "pull", "check", "ls", "log", "open")


def mend_ref(call: Call) -> list[str] | None:
    """Return the words with a ref as loreg writes it."""
    if call.name == "ls" and re.search(r"[*?]|/$", " ".join(call.texts)):
        return call.replace(dict.fromkeys(call.arguments, ()))
    for place, text in zip(call.arguments, call.texts, strict=True):
        if hub := _HUB.fullmatch(text):
            return ["check", f"hf:{hub[1] or hub[2]}"] if call.name in _READING else None
        if mended := _mend(text):
            return call.replace({place: [mended]})
    texts = call.texts
    if len(texts) == 2 and re.fullmatch(_VERSION, texts[1]) and call.name != "tag":  # name v2
        return call.replace({call.arguments[0]: [f"{texts[0]}:{_with_v(texts[1])}"], call.arguments[1]: ()})
    return None


def mend_name(call: Call) -> list[str] | None:
    """Return the words with a name that an adapter can have."""
    if "invalid adapter name" not in call.message and "unexpected extra argument" not in call.message:
        return None
    texts = call.texts
    if call.name == "push" and len(texts) > 2:  # a name with a space
        texts = [texts[0], "-".join(texts[1:])]
    last = len(texts) - 1
    if last < 0 or is_path(texts[last]):
        return None
    parts = [part for part in texts[last].split(":")[0].split("/") if part]
    namespace, name = (_slug(parts[0]), _slug("-".join(parts[1:]))) if len(parts) > 1 else ("", _slug("".join(parts)))
    mended = f"{namespace}/{name}".strip("/")
    first, *rest = call.arguments[last:]
    return call.replace({first: [mended], **dict.fromkeys(rest, ())}) if name else None


def mend_alias(call: Call) -> list[str] | None:
    """Return the words with an alias that can be one."""
    match = re.search(r"(?:invalid alias |^)'([^']+)'(?: cannot be an alias|: expected 1 to 96)", call.message)
    if match is None or call.name not in ("tag", "push", "untag"):
        return None
    alias = match[1]
    if alias == "latest" or re.fullmatch(r"v\d+", alias):
        return call.replace_word(alias, f"release-{alias.lstrip('v')}")
    return call.replace_word(alias, _slug(alias)) if _slug(alias) else None


def _mend(text: str) -> str | None:
    if "://" in text:
        return None
    if match := re.fullmatch(rf"(.+)@({_VERSION}|[A-Za-z][\w.-]*)", text):  # name@v2, name@prod
        return f"{match[1]}:{_with_v(match[2])}"
    if match := re.fullmatch(r"([^/]+/[^/]+)/(v[1-9][0-9]*|latest)", text):  # name/v2
        return f"{match[1]}:{match[2]}"
    if match := re.fullmatch(r"([^:]+):([1-9][0-9]*)", text):  # name:2
        return f"{match[1]}:v{match[2]}"
    if re.fullmatch(r"[\w.-]+/[\w.-]+/", text):  # team/name/
        return text.rstrip("/")
    return None


def _with_v(text: str) -> str:
    return f"v{text}" if text.isdecimal() else text


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("._-")
