"""``errors.md``: the codes of errors, with the exit code of the command line and the status of the server."""

from __future__ import annotations

import inspect

from loreg import errors
from loreg.errors import LoregError
from loreg.server.problems import _CODES, STATUS
from reference_pages.markdown import code, sentence, table

_HEAD = """\
# Errors and exit codes

An error has a code that stays, a message that names the thing, what was found and what was expected, and a hint: the
next command to type. `loreg --debug` prints the cause too. The library raises the class, the server answers with
[RFC 9457](https://www.rfc-editor.org/rfc/rfc9457) problem details that have the same `code` and `hint`.
[Troubleshooting](../troubleshooting.md) says what to do about the most frequent ones.

## Exit codes

"""


def list_errors() -> list[type[LoregError]]:
    """Return the classes of errors in the order of their tree, the root first."""

    def descend(kind: type[LoregError]) -> list[type[LoregError]]:
        return [kind, *(deeper for child in kind.__subclasses__() for deeper in descend(child))]

    return [kind for kind in descend(LoregError) if kind.__module__ == errors.__name__]


def render() -> dict[str, str]:
    """Return the page of errors by its path."""
    kinds = list_errors()
    exits: dict[int, list[str]] = {}
    for kind in kinds:
        exits.setdefault(kind.exit_code, []).append(_link(kind))
    rows = [("0", "nothing: all went well"), *((str(number), ", ".join(exits[number])) for number in sorted(exits))]
    parts = [_HEAD + table(["Exit code", "Error"], rows)]
    codes = [(_link(kind), code(kind.__name__), str(kind.exit_code), _status(kind), _about(kind)) for kind in kinds]
    parts.append("## Codes\n\n" + table(["Code", "Class", "Exit code", "HTTP status", "Meaning"], codes))
    parts += [_render_error(kind) for kind in kinds]
    known = {kind.code for kind in kinds}
    wire = [(code(word), str(status)) for status, word in sorted(_CODES.items()) if word not in known]
    parts.append(
        "## Codes of the server alone\n\nThe server answers with these before a request reaches the library.\n\n"
        + table(["Code", "HTTP status"], wire)
    )
    return {"errors.md": "\n".join(parts)}


def _link(kind: type[LoregError]) -> str:
    return f"[`{kind.code}`](#error-{kind.code})"


def _about(kind: type[LoregError]) -> str:
    return sentence((inspect.getdoc(kind) or "").partition("\n\n")[0])


def _status(kind: type[LoregError]) -> str:
    """Return the HTTP status; a class that the server never answers with has that of any other error, 500."""
    return str(STATUS.get(kind, 500))


def _render_error(kind: type[LoregError]) -> str:
    parent = kind.__mro__[1]
    rows = [
        ("Class", f"{{py:class}}`loreg.errors.{kind.__name__}`"),
        *([("A kind of", _link(parent))] if issubclass(parent, LoregError) else []),
        ("Exit code", str(kind.exit_code)),
        ("HTTP status", _status(kind)),
    ]
    facts = table(["", ""], rows)
    return f"(error-{kind.code})=\n### `{kind.code}`\n\n{_about(kind)}\n\n{facts}"
