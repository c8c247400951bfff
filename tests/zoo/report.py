"""What the zoo found, as lines for a person who watches and as Markdown to be kept."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from zoo.judging import KINDS, STAGES, Verdict
from zoo.options import OPTIONS
from zoo.refusals import REFUSALS

BAD = ("WRONG", "CRASHED", "false alarm", "REFUSED")


@dataclass(frozen=True)
class Outcome:
    """All verdicts of one case; none where PEFT or transformers cannot do it either, with the ``reason``."""

    architecture: str
    tying: str
    option: str
    verdicts: tuple[Verdict, ...]
    reason: str = ""
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """Return the case as ``--only`` and ``--options`` name it."""
        return "/".join(filter(None, (self.architecture, self.tying, self.option)))


def lines(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Answer what to print of one base: a line for all that is right, and one for each verdict that is not."""
    if outcomes and not outcomes[0].option:
        yield f"{outcomes[0].name}: cannot be built: {outcomes[0].reason}"
        return
    counts = Counter(verdict.kind for outcome in outcomes for verdict in outcome.verdicts)
    seconds = sum(outcome.seconds for outcome in outcomes)
    summary = ", ".join(f"{counts[kind]} {kind}" for kind in KINDS if counts[kind] and kind != "-")
    if outcomes:
        yield f"{outcomes[0].architecture}/{outcomes[0].tying}: {len(outcomes)} cases, {summary} ({seconds:.1f} s)"
    for outcome in outcomes:
        if not outcome.verdicts:
            yield f"  {outcome.option}: not tried: {outcome.reason[:160]}"
        for verdict in outcome.verdicts:
            if verdict.kind not in ("ok", "-"):
                yield f"  {outcome.option} {verdict.stage} {_short(verdict)}: {verdict.detail[:300]}"


def markdown(outcomes: Sequence[Outcome]) -> str:
    """Return all of it: the sums, a table of architectures and options, refusals and what is not tried by reason."""
    return "\n".join(
        [
            "# The zoo: loreg beside PEFT and transformers",
            "",
            "Written by `make zoo`. A cell names every stage that is not right; where all are, it holds the largest",
            "error, relative to the largest answer.",
            "",
            *_sums(outcomes),
            *_table(outcomes),
            *_grouped("What is wrong", outcomes, BAD),
            *_grouped("What is refused for a reason", outcomes, ("refused",)),
            *(
                f"- {refusal.stage} of {', '.join(refusal.options)}, “{refusal.words}”: {refusal.reason}"
                for refusal in REFUSALS
            ),
            "",
            *_not_tried(outcomes),
        ]
    )


def _sums(outcomes: Sequence[Outcome]) -> Iterator[str]:
    counts = Counter((verdict.stage, verdict.kind) for outcome in outcomes for verdict in outcome.verdicts)
    kinds = [kind for kind in KINDS if kind != "-"]
    worst = {
        stage: max((v.error for o in outcomes for v in o.verdicts if v.stage == stage and v.kind == "ok"), default=0.0)
        for stage in STAGES
    }
    cases = sum(bool(outcome.verdicts) for outcome in outcomes)
    architectures = len({outcome.architecture for outcome in outcomes if outcome.verdicts})
    yield f"{architectures} architectures, {cases} cases."
    yield ""
    yield f"| stage | {' | '.join(kinds)} | largest error that is right |"
    yield "|---" * (len(kinds) + 2) + "|"
    for stage in STAGES:
        yield f"| {stage} | {' | '.join(str(counts[stage, kind]) for kind in kinds)} | {worst[stage]:.0e} |"
    yield ""


def _table(outcomes: Sequence[Outcome]) -> Iterator[str]:
    tried = [option.name for option in OPTIONS if any(o.option == option.name for o in outcomes)]
    yield f"| | {' | '.join(tried)} |"
    yield "|---" * (len(tried) + 1) + "|"
    rows: dict[str, dict[str, Outcome]] = defaultdict(dict)
    for outcome in outcomes:
        if outcome.option:
            rows[f"{outcome.architecture}, {outcome.tying} tying"][outcome.option] = outcome
    for row, cells in rows.items():
        yield f"| {row} | {' | '.join(_cell(cells.get(option)) for option in tried)} |"
    yield ""


def _cell(outcome: Outcome | None) -> str:
    if outcome is None or not outcome.verdicts:
        return "" if outcome is None else "–"
    remarks = [f"{verdict.stage} {_short(verdict)}" for verdict in outcome.verdicts if verdict.kind not in ("ok", "-")]
    return ", ".join(remarks) or f"{max(verdict.error for verdict in outcome.verdicts):.0e}"


def _short(verdict: Verdict) -> str:
    if verdict.kind == "WRONG":
        return f"**WRONG** {verdict.error:.0e}"
    return " ".join(filter(None, (verdict.kind, verdict.code)))


def _grouped(title: str, outcomes: Sequence[Outcome], kinds: Sequence[str]) -> Iterator[str]:
    """Answer every message of these kinds once, with the cases that it was said of."""
    cases: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for outcome in outcomes:
        for verdict in outcome.verdicts:
            if verdict.kind in kinds:
                message = _general(verdict.detail, outcome)
                cases[verdict.stage, " ".join((verdict.kind, verdict.code)).strip(), message].append(outcome.name)
    yield f"## {title}: {sum(map(len, cases.values()))}"
    yield ""
    for (stage, kind, message), names in sorted(cases.items(), key=lambda item: -len(item[1])):
        yield f"- {stage} {kind}, {len(names)}: {message or 'other numbers'}"
        yield f"  ({_some(names)})"
    yield ""


def _not_tried(outcomes: Sequence[Outcome]) -> Iterator[str]:
    reasons: dict[str, list[str]] = defaultdict(list)
    for outcome in outcomes:
        if not outcome.verdicts:
            reasons[_general(outcome.reason, outcome)].append(outcome.name)
    yield f"## Not tried, because PEFT or transformers cannot do it either: {sum(map(len, reasons.values()))}"
    yield ""
    for reason, names in sorted(reasons.items(), key=lambda item: -len(item[1])):
        yield f"- {reason}"
        yield f"  ({_some(names)})"
    yield ""


def _general(message: str, outcome: Outcome) -> str:
    """Return a message without what differs from case to case: names of modules, numbers, folders, digests."""
    message = re.sub(r"/\S*/loreg-zoo-\w+/", "", message)
    message = re.sub(r"\b[0-9a-f]{12,64}\b", "…", message)
    message = re.sub(r"(?:[\w]+\.){1,}[\w]+\b(?!\()", "MODULE", message)
    message = re.sub(r"\d[\d.e+-]*", "N", message)
    return message.replace(outcome.architecture, "MODEL").replace("\n", " ")[:300]


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:12]) + (f" and {len(listed) - 12} more" if len(listed) > 12 else "")
