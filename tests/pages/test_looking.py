"""A person looks at the registry in a real browser: signs in, searches, opens an adapter and a version, signs out."""

from __future__ import annotations

from pathlib import Path

import httpx
from playwright.sync_api import expect

from deployments import empty_folders
from live_server import live_server
from pages.conftest import Site, Someone, open_site


def test_a_person_signs_in_searches_opens_and_signs_out(on_either: Site, someone: Someone):
    person = someone(on_either.endpoint)
    page = person.go("/")
    main = page.get_by_role("main")
    expect(main.get_by_role("link", name="lab/history")).to_have_count(1)
    expect(main.get_by_role("link", name="team/news")).to_have_count(0)

    person.sign_in(on_either.tokens["reader"])
    main.get_by_label("Search", exact=True).fill("news")
    main.get_by_role("button", name="Search").click()
    page.wait_for_url("**/?text=news")
    main.get_by_role("link", name="team/news", exact=True).click()
    page.locator("#curves canvas").wait_for()  # accuracy over two versions
    assert page.title() == "team/news · loreg"
    main.get_by_role("row").get_by_role("link", name="v1", exact=True).click()
    page.get_by_role("heading", name="Which servers take it").wait_for()
    expect(page).to_have_url(f"{on_either.endpoint}/team/news/v1")
    expect(main.get_by_role("row", name="vLLM").get_by_text("loads")).to_have_count(1)

    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url(on_either.endpoint + "/")
    expect(page.get_by_role("link", name="team/news")).to_have_count(0)


def test_a_facet_narrows_the_list_and_the_url_and_the_command_say_so(site: Site, someone: Someone):
    person = someone(site.endpoint)
    person.sign_in(site.tokens["root"])
    page = person.go("/")
    page.get_by_role("complementary").get_by_role("link", name="news-topics").click()
    page.wait_for_url("**/?task=news-topics*")
    page.get_by_text("loreg search --task news-topics").wait_for()
    expect(page.locator("tbody tr")).to_have_count(1)
    page.get_by_role("link", name="task: news-topics").click()
    page.wait_for_url(site.endpoint + "/")
    expect(page.locator("tbody tr")).to_have_count(5)


def test_without_javascript_a_link_leads_from_the_list_to_the_counts_and_back(site: Site, someone: Someone):
    page = someone(site.endpoint, java_script_enabled=False).go("/?text=history")
    page.get_by_role("link", name="Narrow down: count what there is").click()
    expect(page.get_by_text("1 version", exact=True)).to_have_count(1)
    page.get_by_role("complementary").get_by_role("link", name="qa").click()
    expect(page).to_have_url(f"{site.endpoint}/?text=history&task=qa")
    expect(page.locator("tbody tr")).to_have_count(1)


def test_the_list_shows_how_many_versions_there_are_when_they_are_counted(site: Site, someone: Someone):
    page = someone(site.endpoint).go("/")
    assert page.locator("#counted").inner_text() == "1 version"
    assert "1 version" not in httpx.get(site.endpoint, headers={"Accept": "text/html"}).text


def test_the_best_version_by_a_metric_is_shown_with_it(site: Site, someone: Someone):
    person = someone(site.endpoint)
    person.sign_in(site.tokens["root"])
    page = person.go("/")
    page.get_by_label("Bound").fill("0.94")
    page.get_by_role("button", name="Apply").click()
    page.wait_for_url("**metric=accuracy*")
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(1)
    expect(rows.first).to_contain_text("0.95")
    page = person.go("/?best=accuracy@ag_news")
    assert [row.inner_text().split()[:2] for row in page.locator("tbody tr").all()] == [["team/news", "v2"]]


def test_a_slider_bounds_a_metric_between_its_least_and_its_greatest_number(site: Site, someone: Someone):
    person = someone(site.endpoint)
    person.sign_in(site.tokens["root"])
    page = person.go("/?all_versions=1")
    slider = page.get_by_role("slider", name="At least or at most")
    assert [slider.get_attribute(name) for name in ("min", "max")] == ["0.93", "0.95"]
    slider.press("End")
    page.wait_for_url(lambda url: "0.95" in url)
    page.get_by_text("loreg search --metric 'accuracy>=0.95'").wait_for()
    expect(page.locator("tbody tr")).to_have_count(1)
    slider = page.get_by_role("slider", name="At least or at most")
    assert [slider.get_attribute("min"), slider.input_value()] == ["0.93", "0.95"]
    slider.press("Home")
    page.wait_for_url(lambda url: "0.93" in url)
    expect(page.get_by_role("link", name="metric:")).to_have_count(1)
    expect(page.locator("tbody tr")).to_have_count(2)


def test_the_adapters_of_one_namespace_are_a_facet(site: Site, someone: Someone):
    page = someone(site.endpoint).go("/")
    page.get_by_role("complementary").get_by_role("link", name="lab").click()
    page.wait_for_url("**/?namespace=lab*")
    page.get_by_text("loreg search --namespace lab").wait_for()
    expect(page.get_by_role("complementary").get_by_role("link", name="team")).to_have_count(0)


def test_what_loads_in_a_server_is_a_facet(site: Site, someone: Someone):
    person = someone(site.endpoint)
    person.sign_in(site.tokens["root"])
    page = person.go("/")
    page.get_by_role("complementary").get_by_role("link", name="vllm").click()
    page.wait_for_url("**/?loads_in=vllm*")
    page.get_by_text("loreg search --loads-in vllm").wait_for()
    page.get_by_role("link", name="loads in vllm").wait_for()


def test_the_audit_is_filtered_by_a_form_and_the_url_the_command_and_the_csv_follow(site: Site, someone: Someone):
    person = someone(site.endpoint)
    person.sign_in(site.tokens["root"])
    page = person.go("/audit")
    page.get_by_label("What").select_option("tag")
    page.get_by_label("Namespace").fill("team")
    page.get_by_label("From").fill("2020-01-31")
    page.get_by_label("Without pulls").check()
    page.get_by_role("button", name="Show").click()
    page.wait_for_url(lambda url: "namespace=team" in url)
    page.get_by_text("loreg events --namespace team --action tag --since 2020-01-31 --no-pulls").wait_for()
    rows = [row.inner_text().split("\t")[2:4] for row in page.locator("tbody tr").all()]
    assert rows == [["tag", "team/news:v2"], ["tag", "team/news:v1"]]
    with site.visit("root") as client:
        link = page.get_by_role("link", name="CSV").get_attribute("href")
        table = client.get(link).text.splitlines()
    assert [line.split(",")[3:5] for line in table[1:]] == rows
    page.get_by_role("link", name="Show all").click()
    page.wait_for_url("**/audit")
    author = page.locator("tbody tr").first.get_by_role("cell").nth(1)
    name = author.inner_text()
    author.get_by_role("link").click()
    page.get_by_text(f"loreg events --author {name}").wait_for()


def test_a_copy_button_copies_the_command(site: Site, someone: Someone):
    person = someone(site.endpoint, permissions=["clipboard-read", "clipboard-write"])
    page = person.go("/lab/history")
    page.locator(".command").get_by_role("button", name="Copy").click()
    page.get_by_role("button", name="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == "loreg ls lab/history"


def test_without_javascript_every_page_says_the_same(site: Site, someone: Someone):
    person = someone(site.endpoint, java_script_enabled=False)
    page = person.go("/")
    page.get_by_role("link", name="lab/history", exact=True).click()
    page.get_by_role("row").get_by_role("link", name="v1", exact=True).click()
    page.get_by_role("link", name="Look inside").click()
    page.get_by_role("row", name="vLLM").wait_for()
    page = person.go("/lab/history")
    page.get_by_label("vLLM").check()
    page.get_by_text("vllm serve").wait_for()


def test_the_keyboard_leads_past_the_navigation(site: Site, someone: Someone):
    page = someone(site.endpoint).go("/")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"


def test_an_adapter_of_which_every_version_is_yanked_says_so(tmp_path: Path, someone: Someone):
    with open_site(empty_folders(tmp_path), is_open=True) as site:
        site.behind.yank("lab/history:v1", reason="trained on the test set")
        page = someone(site.endpoint).go("/lab/history")
        expect(page.get_by_text("Every version of this adapter is yanked")).to_have_count(1)
        expect(page.locator("tbody tr")).to_have_count(1)


def test_an_empty_registry_says_how_to_begin(tmp_path: Path, someone: Someone):
    with live_server(empty_folders(tmp_path)) as endpoint:
        page = someone(endpoint).go("/")
        page.get_by_role("main").get_by_role("link", name="How to push").click()
        page.get_by_text(f"export LOREG_ENDPOINT={endpoint}").wait_for()


def test_who_shares_an_alias_and_when_it_goes_back_is_shown(tmp_path: Path, someone: Someone):
    with open_site(empty_folders(tmp_path), is_open=True) as site:
        site.behind.begin_canary("team/news:v2", "prod", share=0.25, rollback_if=["accuracy<0.8"])
        page = someone(site.endpoint).go("/team/news")
        expect(page.get_by_text("v2 for 25 %, unless accuracy<0.8")).to_have_count(1)
        site.behind.tag("team/news:v2", "prod", rollback_if=["accuracy<0.8"])
        expect(someone(site.endpoint).go("/team/news").get_by_text("back to v1 if accuracy<0.8")).to_have_count(1)


def test_of_a_version_whose_weights_are_lost_no_server_is_said_to_take_it(tmp_path: Path, someone: Someone):
    with open_site(empty_folders(tmp_path), is_open=True) as site:
        (weights,) = [file for file in site.behind.show("plain").files if file.path == "adapter_model.safetensors"]
        for blob in (tmp_path / "store").rglob(f"*{weights.sha256}*"):
            blob.unlink()
        page = someone(site.endpoint).go("/-/plain/v1")
        expect(page.locator("#inside .notice.bad")).to_have_count(1)
        expect(page.get_by_text("loads", exact=True)).to_have_count(0)
