"""A page shows to each role what the API shows it; the rest is not there. A page that has no row here fails."""

from __future__ import annotations

import re
from urllib.parse import quote

import httpx
import pytest

from loreg.server.pages import adapter, compare, diff, invitation, lineage, merge, paths, static_files, version
from loreg.server.pages.router import MODULES
from pages.conftest import SCOPES, Site

ROLES = ("", *SCOPES)
PRIVATE = {"": 404, "reader": 200, "stranger": 404, "root": 200}
EVERYBODY = dict.fromkeys(ROLES, 200)
#: Each page, filled, with who gets it, and a route of the API that answers each role with the same.
PAGES = {
    "/": ("/", EVERYBODY, "/api/v1/search"),
    "/facets": ("/facets", EVERYBODY, "/api/v1/facets"),
    "/bases": ("/bases", EVERYBODY, "/api/v1/base-summaries"),
    paths.BASE: ("", {}, ""),  # test_bases.py
    paths.UPGRADE: ("", {}, ""),  # test_upgrades.py
    "/start": ("/start", EVERYBODY, ""),
    "/sign-in": ("/sign-in", EVERYBODY, ""),
    "/deployments": ("/deployments", EVERYBODY, "/api/v1/deployments"),
    merge.PATH: ("/merge?source=team/science:v1&weight=1", PRIVATE, "/api/v1/merge-preview?source=team/science:v1"),
    compare.PATH: (
        "/compare?source=team/science:v1&source=team/both:v1",
        PRIVATE,
        "/api/v1/comparison?source=team/science:v1&source=team/both:v1",
    ),
    merge.RECIPE: ("", {}, ""),  # of what the URL says: test_merge.py
    "/jobs": ("/jobs", EVERYBODY, "/api/v1/jobs"),
    paths.JOB: ("/jobs/1", PRIVATE, "/api/v1/jobs/1"),
    "/checks": ("/checks", EVERYBODY, "/api/v1/findings"),
    "/admin": ("/admin", {"": 401, "reader": 403, "stranger": 403, "root": 200}, "/api/v1/tokens"),
    "/audit": ("/audit", EVERYBODY, "/api/v1/events"),
    adapter.ADAPTER: ("/team/news", PRIVATE, "/api/v1/adapters/team/news/versions"),
    version.VERSION: ("/team/news/v1", PRIVATE, "/api/v1/adapters/team/news/versions/v1"),
    version.VERSION + "/inside": ("/team/news/v1/inside", PRIVATE, "/api/v1/adapters/team/news/versions/v1/check"),
    diff.CHOOSE_DIFF: ("/team/news/diff?a=v1&b=v2", dict.fromkeys(ROLES, 303), ""),
    diff.DIFF: ("/team/news/diff/v1..v2", PRIVATE, ""),
    lineage.LINEAGE: ("/team/news/v1/lineage", PRIVATE, ""),
    paths.SPECTRA: ("/team/news/v1/spectra", PRIVATE, "/api/v1/adapters/team/news/versions/v1/spectra"),
    static_files.PATH: ("", {}, ""),  # the same for everybody: test_static_files.py
    static_files.ICON: ("/favicon.ico", EVERYBODY, ""),
    invitation.PATH: ("/_/invitation", dict.fromkeys(ROLES, 404), ""),
}


def test_every_page_has_a_row():
    paths = {route.path for module in MODULES for route in module.routes.routes if "GET" in route.methods}
    assert paths == set(PAGES)


@pytest.mark.parametrize("role", ROLES)
def test_a_page_is_there_for_whom_the_api_says_so(site: Site, role: str):
    token = site.tokens.get(role)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with site.visit(role) as client, httpx.Client(base_url=site.endpoint, headers=headers) as api:
        for path, statuses, route in PAGES.values():
            if path:
                assert client.get(path).status_code == statuses[role], path
            if route:
                assert api.get(route).status_code == statuses[role], route


@pytest.mark.parametrize("role", ROLES)
def test_a_page_as_json_is_what_the_api_answers(site: Site, role: str):
    token = site.tokens.get(role)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with site.visit(role) as client, httpx.Client(base_url=site.endpoint, headers=headers) as api:
        for path, statuses, route in PAGES.values():
            if route and not path.endswith("/inside") and statuses[role] == 200:
                assert (
                    client.get(httpx.URL(path).copy_merge_params({"format": "json"})).json() == api.get(route).json()
                ), path


@pytest.mark.parametrize("role", ["", "stranger"])
def test_no_page_names_what_may_not_be_seen(site: Site, role: str):
    hidden = re.compile(r"team/(?:news|science|both|blend)|news-topics|MiniLM")
    with site.visit(role) as client:
        for path in (
            "/", "/?text=adapter", "/?task=qa", "/?base=llama", "/facets", "/facets?task=qa", "/bases", "/deployments",
            "/audit", "/audit?format=csv", "/jobs", "/checks", "/checks?more=1",
            "/checks?missing=base",
        ):  # fmt: skip
            answer = client.get(path)
            assert answer.status_code == 200
            assert not hidden.search(re.sub('placeholder="[^"]*"', "", answer.text)), path


def test_what_is_private_and_what_is_not_there_look_the_same(site: Site):
    with site.visit() as client:
        private = client.get("/team/news").text.replace("team/news", "NAME").replace(quote("team/news"), "NAME")
        missing = client.get("/team/nil1").text.replace("team/nil1", "NAME").replace(quote("team/nil1"), "NAME")
    assert private == missing


def test_a_lineage_names_no_version_that_may_not_be_seen(site: Site):
    """team/both was made of lab/history, which is public."""
    with site.visit() as client:
        assert "team/both" not in client.get("/lab/history/v1").text
        assert "team/both" not in client.get("/lab/history/v1/lineage").text
    with site.visit("reader") as client:
        assert "team/both" in client.get("/lab/history/v1").text
