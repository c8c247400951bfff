"""A tracking server that answers as MLflow 3.17 does; its answers were compared with those of a real one.

Source of routes and fields: https://mlflow.org/docs/latest/rest-api.html, ``mlflow/server/handlers.py``.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

API = "/api/2.0/mlflow/"


class Tracking(BaseHTTPRequestHandler):
    """Runs with their artifacts below ``root/RUN``; ``runs`` has what was logged, by id."""

    protocol_version = "HTTP/1.1"
    root: Path
    runs: dict[str, dict[str, Any]]
    models: dict[str, list[dict[str, Any]]]
    requests: Counter[str]
    token = ""
    page = 2

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        self._answer(parts.path, {name: values[0] for name, values in parse_qs(parts.query).items()})

    def do_POST(self) -> None:
        self._answer(self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _answer(self, path: str, asked: dict[str, Any]) -> None:
        type(self).requests[path] += 1
        if self.token and self.headers.get("Authorization") != f"Bearer {self.token}":
            self._send(401, {"error_code": "UNAUTHENTICATED", "message": "who?"})
        elif path == "/get-artifact":
            self._bytes(self.root / asked["run_uuid"] / asked["path"])
        else:
            answer = getattr(self, "_" + path.removeprefix(API).replace("/", "_").replace("-", "_"))
            answer(asked)

    def _runs_get(self, asked: dict[str, Any]) -> None:
        if asked["run_id"] not in self.runs:
            return self._missing(f"Run with id={asked['run_id']} not found")
        self._send(200, {"run": self._run(asked["run_id"])})
        return None

    def _run(self, run_id: str) -> dict[str, Any]:
        run = self.runs[run_id]
        info = {"run_id": run_id, "run_uuid": run_id, "run_name": run["name"], "experiment_id": "1"}
        info |= {"artifact_uri": f"mlflow-artifacts:/1/{run_id}/artifacts", "lifecycle_stage": "active"}
        last = {name: values[-1] for name, values in run["metrics"].items()}
        metrics = [{"key": name, "value": value, "timestamp": 1, "step": step} for name, (step, value) in last.items()]
        params = [{"key": name, "value": value} for name, value in run["params"].items()]
        return {"info": info, "data": {"metrics": metrics, "params": params, "tags": []}, "inputs": {}}

    def _experiments_get_by_name(self, asked: dict[str, Any]) -> None:
        if asked["experiment_name"] != "loras":
            return self._missing(f"Could not find experiment with name '{asked['experiment_name']}'")
        self._send(200, {"experiment": {"experiment_id": "1", "name": "loras"}})
        return None

    def _runs_search(self, asked: dict[str, Any]) -> None:
        assert asked["experiment_ids"] == ["1"]
        self._page([self._run(run_id) for run_id in self.runs], "runs", asked)

    def _metrics_get_history(self, asked: dict[str, Any]) -> None:
        values = self.runs[asked["run_id"]]["metrics"][asked["metric_key"]]
        entries = [{"key": asked["metric_key"], "value": v, "timestamp": 1, "step": step} for step, v in values]
        self._page(entries, "metrics", asked)

    def _artifacts_list(self, asked: dict[str, Any]) -> None:
        run = self.root / asked["run_id"]
        entries: list[dict[str, Any]] = []
        for path in sorted((run / asked.get("path", "")).iterdir()):
            entry: dict[str, Any] = {"path": path.relative_to(run).as_posix(), "is_dir": path.is_dir()}
            entries.append(entry if path.is_dir() else {**entry, "file_size": path.stat().st_size})
        entries += self.runs[asked["run_id"]].get("listed", [])
        self._send(200, {"root_uri": f"mlflow-artifacts:/1/{asked['run_id']}/artifacts", "files": entries})

    def _registered_models_get(self, asked: dict[str, Any]) -> None:
        if asked["name"] not in self.models:
            return self._missing(f"Registered Model with name={asked['name']} not found")
        self._send(200, {"registered_model": {"name": asked["name"]}})
        return None

    def _model_versions_search(self, asked: dict[str, Any]) -> None:
        (name,) = (name for name in self.models if asked["filter"] == f"name='{name}'")
        self._page(list(reversed(self.models[name])), "model_versions", asked)

    def _page(self, entries: list[dict[str, Any]], name: str, asked: dict[str, Any]) -> None:
        start = int(asked.get("page_token", 0))
        following = {"next_page_token": str(start + self.page)} if entries[start + self.page :] else {}
        self._send(200, {name: entries[start : start + self.page], **following})

    def _missing(self, message: str) -> None:
        self._send(404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": message})

    def _bytes(self, path: Path) -> None:
        content = path.read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        with contextlib.suppress(OSError):  # the client has enough
            self.wfile.write(content)

    def _send(self, status: int, document: dict[str, Any]) -> None:
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def serve_tracking(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Tracking]]:
    """The runs below ``root``; MLFLOW_TRACKING_URI names this server, as long as this lasts."""
    handler = type("ThisTracking", (Tracking,), {"root": root, "runs": {}, "models": {}, "requests": Counter()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_port}/")
    yield handler
    server.shutdown()
    server.server_close()
