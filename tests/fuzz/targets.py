"""What the fuzzers do with bytes: all that ``loreg check --header-only`` does with an adapter from a stranger."""

from __future__ import annotations

import gc
import json
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from loreg.adapters.card import card_license, parse_card_fields
from loreg.adapters.structure import read_remote_structure
from loreg.checking import profile as serving
from loreg.checking.profile import list_profiles, read_profile
from loreg.checking.reports.github import github
from loreg.checking.reports.junit import junit
from loreg.checking.reports.sarif import sarif
from loreg.checking.rules import Subject
from loreg.checking.run import check_adapter
from loreg.entities import CheckReport, Finding
from loreg.errors import AdapterFormatError, IntegrityError

SEPARATOR = b"\n\x00\n"
#: A case that takes longer hangs; one that needs more memory than this beyond what the program has is a bomb.
SECONDS, MEGABYTES = 1, 200
_PROFILES = [read_profile(name.replace("-0", ":0")) for name in list_profiles()]


def look(config: bytes, weights: bytes, size: int, card: str = "") -> tuple[Finding, ...]:
    """Every finding on an adapter of these bytes; the file of weights has ``size`` bytes, zeros after ``weights``.

    Whatever the bytes are, this returns or raises one of the two errors that say the adapter cannot be read.
    """
    parse_card_fields(card)
    card_license(card)

    def read(start: int, count: int) -> bytes:
        part = weights[start : start + count]
        return part + bytes(max(0, min(count, size - start, 1 << 20) - len(part)))

    try:
        structure = read_remote_structure(Path("fuzzed"), config, size, read)
    except (AdapterFormatError, IntegrityError) as error:
        assert error.message
        assert error.hint
        return ()
    structure.facts()
    subject = Subject(structure, None, ("adapter_model.safetensors",))
    findings = check_adapter(subject)
    for profile in _PROFILES:
        findings += serving.check_profile(profile, subject)
    _report(CheckReport("fuzzed", "", findings))
    return findings


def _report(report: CheckReport) -> None:
    """Whatever a stranger called his tensors, each report is one that its readers take."""
    suite = ElementTree.fromstring(junit([report])).find("testsuite")
    assert suite is not None
    assert len(github([report]).splitlines()) == len(report.findings)
    json.dumps(sarif([report], "0"), ensure_ascii=False).encode()


def look_at_bytes(data: bytes) -> tuple[Finding, ...]:
    """A configuration, a separator, then the JSON of a header, or a whole file after ``RAW``; a card after another."""
    config, _, rest = data.partition(SEPARATOR)
    header, _, card = rest.partition(SEPARATOR)
    if header.startswith(b"RAW"):
        return look(config, header[3:], len(header) - 3, card.decode(errors="replace"))
    weights = len(header).to_bytes(8, "little") + header
    return look(config, weights, len(weights) + _data_size(header), card.decode(errors="replace"))


def to_bytes(config: Any, header: Any, card: str = "") -> bytes:
    """The case with these documents."""
    return SEPARATOR.join([json.dumps(config).encode(), json.dumps(header).encode(), card.encode(errors="replace")])


def _data_size(header: bytes) -> int:
    """As many bytes as the offsets speak of, so that headers that are sound get past the reader."""
    try:
        ends = [entry["data_offsets"][1] for name, entry in json.loads(header).items() if name != "__metadata__"]
        return max((end for end in ends if type(end) is int and 0 <= end < 2**50), default=0)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        return 0


@contextmanager
def bounded() -> Iterator[None]:
    """Raise TimeoutError in a case that hangs, MemoryError after one that took too much."""

    def hung(*_: object) -> None:
        raise TimeoutError(f"over {SECONDS} s")

    gc.disable()  # what there is to collect is the fuzzer's own: in a long run that alone takes a second
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    previous = signal.signal(signal.SIGVTALRM, hung)  # of the process's own time: a busy machine is no hang
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        gc.enable()
        signal.signal(signal.SIGVTALRM, previous)
    if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before > MEGABYTES * 1024:
        raise MemoryError(f"over {MEGABYTES} MB")
