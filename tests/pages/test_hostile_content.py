"""What strangers write runs nothing, loads nothing and widens no page, in whichever field it stands."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect
from safetensors.numpy import load_file, save_file

from deployments import HISTORY, SCIENCE, empty_folders
from factories import change_config, copy, write_base
from live_server import live_server
from loreg.entities import MergeOptions, Metric, VersionMetadata
from loreg.registry import connect
from loreg.server.pages.cards import MAX_CARD, render_card
from pages.conftest import Someone

EVIL = "https://evil.example"
SCRIPT = "<script>alert('x')</script><img src=x onerror=alert(1)><svg onload=alert(2)>"
BREAKING = "\"'><b hx-get=/api/v1/tokens hx-trigger=load>{{7*7}}</b>"
RIGHT_TO_LEFT = "abc\u202egpj.exe\u2066 שלום"
HEBREW = "שלום עולם"
LONG = "W" * 3000
TEXTS = (SCRIPT, BREAKING, RIGHT_TO_LEFT, HEBREW, LONG)
CARD = f"""---
license: "{SCRIPT}"
---
# {SCRIPT}
###### deep
# {RIGHT_TO_LEFT}

{SCRIPT} <style>*{{display:none}}</style> <iframe src="{EVIL}"></iframe> <form action="{EVIL}"><input name=token></form>

<div hx-get="/api/v1/tokens" hx-trigger="load" class="top" id="content" style="position:fixed">x</div>

[click](javascript:alert(3)) [data](data:text/html,<script>alert(4)</script>) [there]({EVIL}) [here](/sign-out)
![picture]({EVIL}/x.png) ![{SCRIPT}](javascript:alert(5)) <{EVIL}>

[ref]: javascript:alert(6)
[ref]

| a | {LONG} |
| - | - |
| `{LONG}` | {SCRIPT} |

```
{LONG}
</code></pre><script>alert(7)</script>
```
"""
PIECES = (
    "[",
    "*a ",
    "![a](",
    "> ",
    "- ",
    "`",
    "<a ",
    "_",
    "[a](b",
    "&amp",
    "\\",
    "1. ",
    "[^",
    "~~",
    "<!--",
    "a@",
    "a\n",
    "|a\n",
)
PAGES = (
    "/", "/facets", "/team/evil", "/team/evil/v2", "/team/evil/v2/inside", "/team/evil/v2/spectra", "/team/merged",
    "/team/merged/v1",
    "/deployments", "/audit", "/team/evil/diff/v1..v2", "/team/evil/diff/v2..v1",
    "/team/merged/v1/lineage", "/bases", "/jobs", "/jobs/1",
    "/compare?source=team/evil:v1&source=team/merged:v1&source=team/evil:v2&compute=1",
    "/admin?storage=1", "/checks", "/checks?more=1", "/checks?missing=base", "/checks?code=LR009", "/checks?code=LR006",
    "/merge?source=team/evil:v1&source=team/merged:v1&rank=2&compute=1", "/merge?source=team/evil:v2&compute=1",
)  # fmt: skip


def hostile(folder: Path) -> Path:
    """An adapter that is hostile in its card, its configuration and the names of its modules."""
    copy(SCIENCE, folder)
    change_config(folder, base_model_name_or_path=f"org/{SCRIPT}{LONG}"[:900], task_type=BREAKING)
    (folder / "README.md").write_text(CARD, encoding="utf-8")
    tensors = load_file(folder / "adapter_model.safetensors")
    renamed = {key.replace("layers.3.", f"layers.3.{SCRIPT}{LONG[:300]}."): value for key, value in tensors.items()}
    save_file(renamed, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("hostile")
    deployment = empty_folders(folder)
    where = {"database_url": deployment.database_url, "storage_url": deployment.storage_url}
    with connect(**where, author=BREAKING) as registry, live_server(deployment) as endpoint:
        printable = [text for text in TEXTS if text.isprintable()]
        metrics = [Metric(f"{'m' * 90}{i}", 0.5, "W" * 200, text[:120]) for i, text in enumerate(printable)]
        registry.push(copy(HISTORY, folder / "more"), "team/evil", metrics=metrics, message=RIGHT_TO_LEFT)
        registry.push(
            hostile(folder / "evil"),
            "team/evil",
            tasks=[f"{'W' * 120}{i}" for i in range(900)],
            labels={f"{'L' * 100}{i}": printable[i % len(printable)][:250] for i in range(1000)},
            metrics=metrics,
            message=SCRIPT + LONG,
            aliases=["prod"],
        )
        registry.push(SCIENCE, "team/science")
        source = copy(HISTORY, folder / f"{BREAKING.replace('/', '')}{RIGHT_TO_LEFT}")
        registry.merge(["team/science", source], MergeOptions(), name="team/merged", metadata=VersionMetadata())
        registry.tag("team/evil:v2", "prod")
        registry.yank("team/evil:v1", reason=SCRIPT)
        names = [text[:500] for text in TEXTS if text.isprintable()]
        registry.bases.add(write_base(folder / "base"), names, attach=False)
        metadata = {"message": SCRIPT + LONG, "tasks": [SCRIPT], "labels": {"L": BREAKING}}
        registry.jobs.submit("merge", sources=["team/evil:v2"], weights=[1.0], name="team/asked", **metadata)
        versions = [{"name": text[:90], "ref": "team/evil:v2", "alias": "prod"} for text in printable]
        report = {"server": SCRIPT[:90], "replica": BREAKING[:90], "kind": "vllm", "versions": versions}
        answer = httpx.put(f"{endpoint}/api/v1/deployments", json=report, headers={"X-Loreg-Author": "=2+3"})
        assert answer.status_code == 204, answer.text
        yield endpoint


@pytest.mark.parametrize("width", [360, 1440])
def test_nothing_runs_and_no_page_is_wider_than_the_window(endpoint: str, someone: Someone, width: int):
    """The fixture fails for a dialog, an error, and a request to another host."""
    person = someone(endpoint, viewport={"width": width, "height": 800})
    (base,) = httpx.get(f"{endpoint}/api/v1/bases").json()["items"]
    for path in (*PAGES, f"/bases/{base['digest']}"):
        page = person.go(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        expect(
            page.locator("main script, main iframe, main img, main form[action^=http], main [onerror]")
        ).to_have_count(0)
        expect(page.locator("main :is([style*=fixed], [hx-get*=tokens])")).to_have_count(0)
        expect(page.locator("#content")).to_have_count(1)
        assert "49" not in page.locator("h1").inner_text()


def test_a_card_keeps_links_to_other_sites_alone(endpoint: str, someone: Someone):
    card = someone(endpoint).go("/team/evil").locator(".card")
    assert {link.get_attribute("href") for link in card.locator("a[href]").all()} == {EVIL}
    assert "[picture: picture]" in card.inner_text()
    others = ":not(a, blockquote, br, code, em, h3, h4, h5, h6, p, pre, table, tbody, td, th, thead, tr)"
    expect(card.locator(others)).to_have_count(0)


def test_headings_of_a_card_stand_below_those_of_the_page():
    html = render_card("# one\n\n###### six\n\n# one\n\n## two")
    assert [html[i : i + 4] for i in range(len(html)) if html.startswith("<h", i)] == ["<h3>", "<h4>", "<h3>", "<h4>"]


@pytest.mark.parametrize("piece", PIECES)
def test_a_card_of_32_kib_of_anything_is_rendered(piece: str):
    render_card.cache_clear()
    assert isinstance(str(render_card(piece * (MAX_CARD // len(piece)))), str)


def test_events_as_csv_compute_nothing(endpoint: str):
    rows = list(csv.reader(httpx.get(f"{endpoint}/audit?format=csv").text.splitlines()))
    assert len(rows) > 5
    assert not [cell for row in rows[1:] for cell in row if cell.startswith(("=", "+", "-", "@"))]
