"""What loreg says of an adapter for a server, what the server does, and whether that is the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from server_processes import Did
from torch import Tensor

from loreg.entities import Finding

TOLERANCE = 1e-4
#: Codes of rules on the adapter itself and on its base: they say nothing of a server.
_NOT_OF_SERVERS = ("LR", "LB", "LP")


@dataclass(frozen=True)
class Row:
    """One adapter in one server; ``agree`` is None where loreg says nothing of the server."""

    server: str
    adapter: str
    says: str
    does: str
    agree: bool | None
    proven: tuple[str, ...] = ()


def row(
    server: str,
    adapter: str,
    findings: tuple[Finding, ...],
    did: Did,
    right: Tensor | None,
    rules: Mapping[str, str],
    alone: float,
) -> Row:
    """The row of an adapter with these findings; ``right`` is what PEFT computes, None where it does not load it.

    ``alone`` is how far the server is from transformers on the base without an adapter: on a large one float32 has more
    noise than the tolerance, and three times as much is taken for right.
    A rule is proven if it is among the findings, the server does what it says, and refuses in the words of ``rules``.
    """
    effects = {f.code: ("refuses" if " refuses it" in f.message else "wrong") for f in findings if _is_of_a_server(f)}
    unfit = sorted({f.code for f in findings if f.severity == "error" and not _is_of_a_server(f)})
    does, outcome = _outcome(did, right, max(TOLERANCE, 3 * alone))
    # A server that refuses for one reason cannot also be seen to be wrong for another.
    expected = "refuses" if "refuses" in effects.values() else "wrong" if effects else "right"
    says = ", ".join(f"{effect}: {code}" for code, effect in sorted(effects.items()))
    if unfit:
        says = "; ".join([*([says] if says else []), f"unfit for any server: {', '.join(unfit)}"])
    agree = outcome == expected if effects or not (unfit or right is None) else None
    proven = tuple(
        code for code, words in rules.items() if effects.get(code) == outcome and words.lower() in did.refusal.lower()
    )
    if missing := sorted(rules.keys() - set(proven)):
        agree, does = False, f"{does} (not proven: {', '.join(missing)})"
    return Row(server, adapter, says or "takes it", does, agree, proven)


def says_something(adapter: str, right: Tensor | None, base: Tensor | None) -> None:
    """End everything if an adapter leaves the base's numbers nearly as they are: its rows would prove nothing."""
    if right is not None and base is not None and difference(_last(right, base), base) < 100 * TOLERANCE:
        raise SystemExit(f"the adapter {adapter!r} hardly changes what its base computes")


def difference_alone(server: str, name: str, did: Did, plain: Tensor) -> float:
    """How far the server is from transformers on the base alone. Ends everything if it does not compute the same."""
    far = difference(did.numbers, _last(plain, did.numbers)) if did.numbers is not None else float("inf")
    if far > TOLERANCE:
        raise SystemExit(f"{server} on the base {name!r} alone: {did.refusal or far}")
    return far


def _last(right: Tensor, actual: Tensor) -> Tensor:
    """As many positions of what is right as a server computes, the last ones."""
    return right[-len(actual) :]


def difference(one: Tensor, other: Tensor) -> float:
    """The largest absolute difference, infinite between different shapes or where one is not a number."""
    if one.shape != other.shape or one.isnan().any() != other.isnan().any():
        return float("inf")
    return float((one - other).abs().nan_to_num(0).max())


def _outcome(did: Did, right: Tensor | None, tolerance: float) -> tuple[str, str]:
    if did.numbers is None:
        return f"refuses: {' '.join(did.refusal.split())[:160]}", "refuses"
    if right is None:
        return "computes something that PEFT cannot be compared with", "wrong"
    far = difference(did.numbers, _last(right, did.numbers))
    return (f"right ({far:.1e})", "right") if far <= tolerance else (f"wrong by {far:.2g}", "wrong")


def _is_of_a_server(finding: Finding) -> bool:
    return finding.severity == "error" and not finding.code.startswith(_NOT_OF_SERVERS)
