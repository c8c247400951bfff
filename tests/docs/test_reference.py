"""The reference says all that there is: every rule, profile, method, command, error, setting, route and name."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

import click
import pytest

import loreg
import loreg.checking.run
import loreg.entities
from loreg import errors, settings
from loreg.checking import policy
from loreg.checking.conditions import CONDITIONS
from loreg.checking.explain import explain
from loreg.checking.profile import list_profiles, read_profile
from loreg.checking.rules import RULES
from loreg.merging.methods import METHODS
from loreg.server.routes import hub_read, hub_write
from loreg_cli.main import cli
from server.test_who_may_do_what import HUB, TABLE

ROOT = Path(__file__).parent.parent.parent
LIBRARY = ROOT / "docs" / "reference" / "library"


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    """The generator of pages, which lies beside Sphinx's other extensions."""
    sys.path.insert(0, str(ROOT / "docs" / "_ext"))
    try:
        return importlib.import_module("reference_pages")
    finally:
        sys.path.pop(0)


@pytest.fixture(scope="module")
def pages(generator) -> dict[str, str]:
    return generator.render_pages()


def codes_of_rules() -> list[str]:
    of_servers = [rule.code for name in list_profiles() for rule in read_profile(name).rules]
    return ["LR000", *RULES, *policy.RULES, *of_servers]


@pytest.mark.parametrize("code", codes_of_rules())
def test_every_rule_has_a_page_that_the_table_of_rules_leads_to(pages, code):
    page, explanation = plain(pages[f"rules/{code}.md"]), explain(code)
    assert f"# {code}\n" in page
    assert f"**Severity**\n: {explanation.severity}\n" in page
    assert f"**What to do**\n: {explanation.remedy}\n" in page
    assert f"| [{code}]({code}.md) | {explanation.severity} |" in pages["rules/index.md"]


@pytest.mark.parametrize("name", list_profiles())
def test_every_profile_has_a_page_with_its_rules_and_parameters(pages, name):
    page, profile = pages[f"profiles/{name}.md"], read_profile(name)
    assert f"({name}.md)" in pages["profiles/index.md"]
    assert re.findall(r"^\| \[(\w+)\]\(../rules/\1.md\)", page, re.M) == [rule.code for rule in profile.rules]
    for parameter, value in profile.parameters.items():
        assert f"| `{parameter}` | {value} |" in page


def test_what_a_profiles_page_says_to_type_means_that_profile(pages):
    for name in list_profiles():
        typed = re.search(r"loreg check REF --profile (\S+)", pages[f"profiles/{name}.md"])[1]
        assert read_profile(typed) == read_profile(name)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_its_parameters_and_source_on_the_page(pages, name):
    method = METHODS[name]
    section = plain(pages["methods.md"].partition(f"({name})=\n")[2].partition("\n(")[0])
    assert section.startswith(f"### {name}\n")
    for text in (method.concept, method.use, method.source):
        assert plain(text) in section
    for parameter in method.parameters:
        assert f"| {parameter.name} | {parameter.default} | {parameter.range} | {parameter.about}" in section


def test_every_definition_is_a_function_of_the_oracle(pages):
    named = set(re.findall(r":pyobject: (\w+)", pages["methods.md"]))
    assert {"ties", "elect", "top"} <= named
    assert named <= set(re.findall(r"^def (\w+)", (ROOT / "tests" / "oracles.py").read_text(), re.M))


def test_every_command_has_a_page(pages):
    names = cli.list_commands(click.Context(cli))
    assert {f"cli/{name}.rst" for name in names} | {"cli/index.rst"} == {p for p in pages if p.startswith("cli/")}
    for name in names:
        command = cli.get_command(click.Context(cli), name)
        module, _, function = re.search(r"\.\. click:: (\S+)", pages[f"cli/{name}.rst"])[1].partition(":")
        assert getattr(importlib.import_module(module), function) is command
        assert f":doc:`loreg {name} <{name}>`" in pages["cli/index.rst"]
        assert f"\n   {name}\n" in pages["cli/index.rst"]  # the table of contents


def error_classes() -> list[type[errors.LoregError]]:
    return [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.LoregError)]


@pytest.mark.parametrize("kind", error_classes())
def test_every_error_has_an_anchor_and_a_row(pages, kind):
    page = pages["errors.md"]
    assert f"\n(error-{kind.code})=\n### `{kind.code}`\n" in page
    assert f"| [`{kind.code}`](#error-{kind.code}) | `{kind.__name__}` | {kind.exit_code} |" in page
    assert re.search(rf"^\| {kind.exit_code} \| .*\[`{kind.code}`\]", page, re.M)


@pytest.mark.parametrize("key", settings.KEYS)
def test_every_setting_has_a_row_with_its_variable(pages, key):
    (row,) = re.findall(rf"^\| `{key}` \|.*$", pages["configuration.md"], re.M)
    assert f"`LOREG_{key.upper()}`" in row
    if key in {option.name for option in cli.params}:
        assert f"`--{key.replace('_', '-')}`" in row


def test_every_variable_that_loreg_reads_is_named(pages):
    sources = [*(ROOT / "registry").rglob("*.py"), *(ROOT / "cli").rglob("*.py")]
    read = {name for path in sources for name in re.findall(r"\bLOREG_[A-Z_]+\b", path.read_text(encoding="utf-8"))}
    assert {"LOREG_HOME", "LOREG_DEBUG", "LOREG_ADMIN_TOKEN"} <= read
    assert {name for name in read if f"`{name}`" not in pages["configuration.md"]} == set()


def test_every_field_of_a_policy_and_every_condition_of_a_profile_has_a_row(pages):
    policies = (policy.Policy, loreg.entities.RetentionRules)
    for name in (*(name for kind in policies for name in kind.__struct_fields__), *CONDITIONS):
        assert f"\n| `{name}` |" in pages["files.md"]


REFUSED = (401, 403)
#: Whether what callers of every role are answered, by their role, is what a role on the page says.
AGREES: dict[str, Callable[[Mapping[str, int]], bool]] = {
    "none": lambda may: not {401, 403, 404} & set(may.values()),
    "any token": lambda may: may["anonymous"] == 401 and may["reader"] == may["stranger"] not in REFUSED,
    "any token or public": lambda may: (
        may["anonymous"] == 404 and may["reader"] == may["stranger"] not in (*REFUSED, 404)
    ),
    "`read`": lambda may: may["anonymous"] == 404 == may["stranger"] and may["reader"] not in (*REFUSED, 404),
    "`write`": lambda may: may["reader"] == 403 and may["writer"] not in (*REFUSED, may["stranger"]),
    "`write` anywhere": lambda may: (
        may["anonymous"] == 401 and may["reader"] == 403 and may["writer"] == may["stranger"]
    ),
    "maker or `admin`": lambda may: may["writer"] == 403 and may["owner"] not in REFUSED and may["anonymous"] == 404,
    "`admin`": lambda may: may["writer"] == 403 and may["owner"] not in REFUSED and may["anonymous"] == 401,
    "`admin:*`": lambda may: may["owner"] == 403 and may["root"] not in REFUSED,
}


@pytest.mark.parametrize("route", [*TABLE, *HUB])
def test_every_route_has_a_row_with_the_role_that_the_server_asks_for(generator, pages, route):
    rows = [line.replace("<wbr>", "") for line in pages["http.md"].splitlines() if line.startswith("| `")]
    method, path = route
    escaped = path.replace("_", "\\_")
    (row,) = [row for row in rows if row.startswith(f'| `{method}` <code class="docutils literal route">{escaped}<')]
    may = (TABLE | HUB)[route].may
    assert [role for role, agrees in AGREES.items() if agrees(may)].count(row.split(" | ")[1]) == 1, may


def test_no_route_is_on_the_page_that_the_server_does_not_have(generator):
    http = importlib.import_module("reference_pages.http")
    of_hub = {(m, r.path) for module in (hub_read, hub_write) for r in module.routes.routes for m in r.methods}
    served = {(method, path) for _, method, path, _ in http.list_routes()} | of_hub
    assert set(http.ROLES) == served


def test_every_public_name_is_in_the_library_reference():
    text = "\n".join(path.read_text(encoding="utf-8") for path in LIBRARY.glob("*.rst"))
    documented = set(re.findall(r"^\.\. (?:auto\w+|py:data):: ([\w.]+)", text, re.M))
    elsewhere = {*loreg.entities.__all__, *vars(errors)} - {"MergeOptions", "VersionMetadata"}  # under their own names
    public = {f"loreg.{name}" for name in loreg.__all__ if name != "__version__" and name not in elsewhere}
    public |= {f"loreg.entities.{name}" for name in loreg.entities.__all__} - {
        "loreg.entities.MergeOptions", "loreg.entities.VersionMetadata", "loreg.entities.Progress",
    }  # fmt: skip
    assert public - documented == set()
    assert {"Progress", "loreg.errors"} <= documented
    algebra = {path.stem for path in (ROOT / "registry" / "loreg" / "algebra").glob("*.py")} - {"__init__"}
    assert {f"loreg.algebra.{name}" for name in algebra} - documented == set()


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_no_link_in_it_is_broken(generator, tmp_path):
    site = tmp_path / "html"
    sphinx = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet", "--jobs", "2"]
    built = subprocess.run(
        [*sphinx, "-d", tmp_path / "trees", ROOT / "docs", site],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert (built.returncode, built.stderr) == (0, "")
    checked = subprocess.run([sys.executable, ROOT / "tools" / "check_links.py", site], capture_output=True, text=True)
    assert (checked.returncode, checked.stdout) == (0, "")
    commands = importlib.import_module("reference_pages.commands")
    for typed in commands.list_commands():
        page = site / "reference" / "cli" / f"{typed.split()[1]}.html"
        assert f'id="{typed.replace(" ", "-")}"' in page.read_text(encoding="utf-8")
    for name in loreg.entities.__all__:
        if isinstance(getattr(loreg.entities, name), type) and name not in ("MergeOptions", "VersionMetadata"):
            assert f'id="loreg.entities.{name}"' in (site / "reference/library/entities.html").read_text()


def test_a_broken_link_is_found(tmp_path):
    (tmp_path / "a.html").write_text('<a href="b.html#there">1</a> <a href="b.html#gone">2</a> <a href="c.html">3</a>')
    (tmp_path / "b.html").write_text('<p id="there"></p> <a href="#there">1</a> <a href="https://example.org/x">2</a>')
    checked = subprocess.run(
        [sys.executable, ROOT / "tools" / "check_links.py", tmp_path], capture_output=True, text=True
    )
    assert checked.returncode == 1
    assert checked.stdout.splitlines() == [
        "a.html: b.html#gone: there is no such anchor",
        "a.html: c.html: there is no such page",
    ]


def plain(text: str) -> str:
    """Markdown without what the generator adds to a sentence: code, escapes, and links to papers and issues."""
    text = re.sub(r"\[([^\]]*)\]\(https?://[^)]*\)", r"\1", text)
    return re.sub(r"\\([^\w\s])", r"\1", text).replace("`", "")
