"""Pages live on the host of the API, the Hub and LoRAX: every path of programs answers programs as before."""

from __future__ import annotations

import httpx
import pytest

from deployments import SCIENCE
from loreg.server.pages.paths import PROGRAMS, is_for_programs
from pages.conftest import Site

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
FOR_PROGRAMS = {
    "/healthz": 200, "/readyz": 200, "/metrics": 200, "/openapi.json": 200,
    "/api": 404, "/api/": 404, "/api/v1": 404, "/api/v1/nothing": 404, "/api/v1/v3": 404, "/api/v1/search": 200,
    "/api/models/lab/history": 200, "/api/models/v1": 404, "/api/models/lab/history/v1": 404, "/api/whoami-v2": 401,
    "/lab/history/resolve/main/adapter_config.json": 200, "/lab/history/resolve/v1/nothing": 404,
    "/v2/repos/lab/history/version/1": 403, "/v2": 404, "/v2/repos/v1": 404,
}  # fmt: skip


@pytest.mark.parametrize("headers", [{}, BROWSER], ids=["program", "browser"])
def test_paths_of_programs_answer_programs_also_to_a_browser(site: Site, headers: dict[str, str]):
    with httpx.Client(base_url=site.endpoint, headers=headers) as client:
        for path, status in FOR_PROGRAMS.items():
            answer = client.get(path)
            assert answer.status_code == status, path
            assert "text/html" not in answer.headers["Content-Type"], path
            assert is_for_programs(path)


def test_what_is_nowhere_is_a_problem_for_programs_and_a_page_for_browsers(site: Site):
    for path in ("/nothing", "/a/b/c/d/e", "/team/nothing/v0", "/no such name/x", "/team/nothing", "/team/news/v1"):
        assert httpx.get(site.endpoint + path).headers["Content-Type"] == "application/problem+json"
        page = httpx.get(site.endpoint + path, headers=BROWSER)
        assert page.status_code == 404
        assert "<h1>Not found</h1>" in page.text


def test_what_no_page_takes_is_refused_as_before(site: Site):
    for method, path in (("POST", "/api/v1/v3"), ("DELETE", "/api/v1")):
        assert httpx.request(method, site.endpoint + path).status_code == 404, (method, path)


def test_a_namespace_called_like_a_path_of_programs_has_no_page(site: Site):
    for namespace in PROGRAMS:
        site.behind.push(SCIENCE, f"{namespace}/v1")
        with site.visit("root") as client:
            assert client.get(f"/{namespace}/v1").status_code == 404
            assert client.get("/").status_code == 200


@pytest.mark.parametrize(
    "name",
    ["team/resolve", "resolve/resolve", "resolve/main", "bases/bases", "merge/diff", "facets/lineage", "metrics/x"],
)
def test_an_adapter_called_like_a_path_has_all_pages(own: Site, name: str):
    own.behind.push(SCIENCE, name)
    with own.visit("root") as client:
        for part in ("", "/v1", "/v1/inside", "/v1/spectra", "/v1/lineage", "/diff/v1..v1"):
            answer = client.get(f"/{name}{part}")
            assert (answer.status_code, name in answer.text) == (200, True), part
        file = httpx.get(
            f"{own.endpoint}/{name}/resolve/v1/adapter_config.json", headers={"Authorization": token_of(own)}
        )
        assert file.status_code == 200


def test_a_file_of_an_adapter_without_a_namespace_is_read_by_clients_of_the_hub(own: Site):
    for path in ("adapter_model.safetensors", "adapter_config.json"):
        answer = httpx.get(f"{own.endpoint}/plain/resolve/v1/{path}", headers={"Authorization": token_of(own)})
        assert answer.status_code == 200


def token_of(site: Site) -> str:
    return f"Bearer {site.tokens['root']}"


def test_an_adapter_without_a_namespace_is_at_a_dash(site: Site):
    with site.visit("root") as client:
        assert client.get("/-/plain").status_code == 200
        assert 'href="/-/plain"' in client.get("/").text
