"""Mistakes in numbers, weights and metrics: ``93%``, ``0,93``, ``0.7 0.3``, ``accuracy=>0.9``."""

from __future__ import annotations

import re

from loreg_cli.corrections.call import Call

_NUMBER = re.compile(r"-?\d+(?:[.,]\d+)?")
_COUNTS = re.compile(r"(\d+) adapters and (\d+) weights")


def join_weights(call: Call) -> list[str] | None:
    """Return the words with one weight for each source, joined by commas."""
    places = call.option_values("--weights")
    if len(places) != 1:
        return None
    (place,) = places
    end = place + 1
    while end < len(call.words) and _NUMBER.fullmatch(call.words[end]):
        end += 1
    weights_typed = call.words[place:end]
    if len(weights_typed) > 1:  # 0.7 0.3, or 0,7 0,3
        weights = [word.replace(",", ".").strip() for word in weights_typed]
    else:
        weights = [weight for weight in re.split(r"[;,\s]+", weights_typed[0]) if weight]
        if match := _COUNTS.search(call.message):
            sources = int(match[1])
            weights = [*weights, *["1"] * (sources - len(weights))][:sources]
    return call.replace({place: [",".join(weights)], **dict.fromkeys(range(place + 1, end), ())})


def mend_numbers(call: Call) -> list[str] | None:
    """Return the words with metrics and numbers as loreg writes them."""
    if not call.is_error("usage"):
        return None
    if call.name == "metric add" and len(call.texts) == 3 and _NUMBER.fullmatch(call.texts[2]):  # accuracy 0.9
        _, name, value = call.arguments
        return call.replace({name: [f"{call.words[name]}={_mend_number(call.words[value])}"], value: ()})
    changes = {}
    for i, word in enumerate(call.words):
        if word in call.message or repr(word) in call.message:
            changes[i] = [_mend_condition(word)]
    return call.replace(changes) if changes else None


def search_by_metric(call: Call) -> list[str] | None:
    """Return the words of a search that orders by a metric, or bounds a rank on both sides."""
    if call.name != "search":
        return None
    for place in call.option_values("--metric"):
        if re.fullmatch(r"[\w.-]+(?:@[\w.:-]+)?", call.words[place]):
            return call.replace({place - 1: ["--sort"], place: [f"metric:{call.words[place]}"]})
    for place in call.option_values("--sort"):
        if "invalid sort order" in call.message:
            return call.replace({place: [f"metric:{call.words[place].removeprefix('metric=')}"]})
    for place in call.option_values("--rank"):
        if match := re.fullmatch(r"(\d+)-(\d+)", call.words[place]):
            return call.replace({place: [f">={match[1]}", "--rank", f"<={match[2]}"]})
    return None


def _mend_condition(word: str) -> str:
    word = re.sub(r"=([<>])", r"\1=", word)
    word = re.sub(r"^([\w.-]+):(\d)", r"\1=\2", word)
    name, sign, value = re.split(r"([<>]=?|=)", word, maxsplit=1) if re.search("[<>=]", word) else ("", "", word)
    number, at, where = value.partition("@")
    return f"{name}{sign}{_mend_number(number)}{at}{where}"


def _mend_number(text: str) -> str:
    if text.endswith("%"):
        try:
            return f"{float(text[:-1].replace(',', '.')) / 100:g}"
        except ValueError:
            return text
    return text.replace(",", ".") if re.fullmatch(r"-?\d+,\d+", text) else text
