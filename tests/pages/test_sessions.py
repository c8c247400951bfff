"""Who looks: a token becomes a cookie that pages alone read; no other site can use it or send a form."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from deployments import empty_folders
from pages.conftest import Site, form_token, open_site, sign_in


def test_the_cookie_is_out_of_reach_of_scripts_and_of_other_sites(site: Site):
    with httpx.Client(base_url=site.endpoint) as client:
        cookie = sign_in(client, site.tokens["reader"]).headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "Max-Age" not in cookie.partition(site.tokens["reader"])[2].partition(",")[0]
    assert "Secure" not in cookie.partition(",")[0]  # over plain HTTP the browser would not send it back


def test_behind_tls_the_cookie_is_never_sent_in_the_clear_nor_set_by_another_host(site: Site):
    with httpx.Client(base_url=site.endpoint, headers={"X-Forwarded-Proto": "https"}) as client:
        form = client.get("/sign-in")
        name, _, value = form.headers["Set-Cookie"].partition(";")[0].partition("=")
        assert name.startswith("__Host-")
        fields = {"form_token": form_token(form.text), "token": site.tokens["reader"], "next": "/"}
        headers = {"Origin": site.endpoint, "Cookie": f"{name}={value}"}
        cookie = client.post("/sign-in", data=fields, headers=headers).headers["Set-Cookie"].partition(",")[0]
    assert cookie.startswith("__Host-loreg")
    assert "Secure" in cookie
    assert "Path=/" in cookie


def test_no_route_of_the_api_or_the_hub_accepts_the_cookie(site: Site):
    with site.visit("root") as client:
        assert client.get("/team/science").status_code == 200
        assert client.get("/api/v1/whoami").json()["token_id"] is None
        for path in (
            "/api/v1/adapters/team/science/versions",
            "/api/models/team/science",
            "/v2/repos/team/science/version/1",
        ):
            assert client.get(path).status_code == 404
        assert client.get("/team/science/resolve/main/adapter_config.json").status_code == 404
        made = client.post("/api/v1/tokens", json={"name": "x", "scopes": ["admin:*"]})
        assert made.status_code == 401


def test_a_token_in_a_header_opens_no_page(site: Site):
    headers = {"Authorization": f"Bearer {site.tokens['root']}"}
    assert httpx.get(f"{site.endpoint}/team/science", headers=headers).status_code == 404


def test_a_wrong_token_signs_nobody_in(site: Site):
    with httpx.Client(base_url=site.endpoint) as client:
        for token in ("", "lrg_" + "x" * 43, "<script>", "x" * 9000):
            answer = sign_in(client, token)
            assert answer.status_code == 401
            assert "lrg_x" not in answer.text
            assert not any(name.startswith("loreg-") and "form" not in name for name in client.cookies)


def test_a_revoked_token_ends_the_session_at_once(tmp_path: Path):
    with open_site(empty_folders(tmp_path)) as site, site.visit("reader") as client:
        assert client.get("/team/science").status_code == 200
        reader = next(token for token in site.behind.tokens.list() if token.name == "reader")
        site.behind.tokens.revoke(reader.id)
        answer = client.get("/lab/history")
        assert answer.status_code == 401
        assert "Sign in" in answer.text
        assert client.get("/lab/history").status_code == 200  # as anybody


def test_signing_out_forgets_the_token(site: Site):
    with site.visit("reader") as client:
        token = form_token(client.get("/").text)
        answer = client.post("/sign-out", data={"form_token": token}, headers={"Origin": site.endpoint})
        assert answer.status_code == 303
        assert client.get("/team/science").status_code == 404


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "null"},
        {"Origin": "https://evil.example"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "ENDPOINT", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "ENDPOINT", "Sec-Fetch-Site": "same-site"},
        {"Origin": "ENDPOINT", "Sec-Fetch-Site": "none"},
    ],
)
def test_a_form_from_elsewhere_does_nothing(site: Site, headers: dict[str, str]):
    headers = {name: value.replace("ENDPOINT", site.endpoint) for name, value in headers.items()}
    with site.visit("reader") as client:
        token = form_token(client.get("/").text)
        assert client.post("/sign-out", data={"form_token": token}, headers=headers).status_code == 403
        assert client.get("/team/science").status_code == 200


@pytest.mark.parametrize("token", [None, "", "0" * 40, "é"])
def test_a_form_without_its_token_does_nothing(site: Site, token: str | None):
    fields = {} if token is None else {"form_token": token}
    headers = {"Origin": site.endpoint}
    with site.visit("reader") as client:
        assert client.post("/sign-out", data=fields, headers=headers).status_code == 403
        assert client.post("/sign-in", data={**fields, "token": "x"}, headers=headers).status_code == 403
        assert client.get("/team/science").status_code == 200


@pytest.mark.parametrize(
    ("asked", "goes_to"),
    [
        ("/team/news?cursor=x", "/team/news?cursor=x"),
        ("https://evil.example/", "/"),
        ("//evil.example/", "/"),
        ("/\\evil.example", "/"),
        ("/\t/evil.example", "/"),
        ("javascript:alert(1)", "/"),
        ("", "/"),
    ],
)
def test_signing_in_goes_on_to_a_page_of_this_server_alone(site: Site, asked: str, goes_to: str):
    with httpx.Client(base_url=site.endpoint) as client:
        assert sign_in(client, site.tokens["reader"], asked).headers["Location"] == goes_to


def test_pages_are_kept_by_no_cache_and_shown_in_no_frame(site: Site):
    with site.visit("reader") as client:
        for path in ("/", "/team/science", "/nowhere", "/team/nothing"):
            headers = client.get(path).headers
            assert headers["Cache-Control"] == "no-store"
            policy = headers["Content-Security-Policy"]
            assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
            assert "unsafe" not in policy
            assert "frame-ancestors 'none'" in policy
            assert headers["X-Content-Type-Options"] == "nosniff"
