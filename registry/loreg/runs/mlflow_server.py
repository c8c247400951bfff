"""Ask an MLflow tracking server by its REST API: runs, artifacts and versions of registered models.

Source: https://mlflow.org/docs/latest/rest-api.html, and MLflow 3.17 ``server/handlers.py`` for ``/get-artifact``, by
which a server sends an artifact wherever it keeps it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import urllib3

from loreg.adapters.folder import is_relative_path
from loreg.errors import IntegrityError, LoregError, NotAllowedError, NotFoundError, UnavailableError, UsageError
from loreg.runs.documents import to_number

_API = "/api/2.0/mlflow"
_TIMEOUT = urllib3.Timeout(connect=10, read=60)
_CHUNK = 1 << 20  # bytes
_MAX_JSON = 64 * 1024**2  # bytes
_MAX_ENTRIES = 1_000_000  # files and folders of one run: a store that invents them would be asked for ever
_PAGE = 200


@dataclass(frozen=True)
class MlflowServer:
    """A tracking server at ``url``; ``authorization`` is sent to it alone."""

    url: str
    authorization: str = field(default="", repr=False)
    _pool: urllib3.PoolManager = field(
        default_factory=lambda: urllib3.PoolManager(maxsize=8, timeout=_TIMEOUT), repr=False, compare=False
    )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> MlflowServer:
        """Return the server of MLFLOW_TRACKING_URI, with the token, or name and password, that MLflow takes.

        Raises UsageError where there is none.
        """
        url = environment.get("MLFLOW_TRACKING_URI", "")
        if urlsplit(url).scheme not in ("http", "https"):
            raise UsageError(
                f"MLFLOW_TRACKING_URI is {url!r}, expected the URL of a tracking server"
                if url
                else "there is no tracking server: MLFLOW_TRACKING_URI is not set",
                hint="export MLFLOW_TRACKING_URI=http://HOST:5000; for a folder: loreg import ./mlruns",
            )
        if token := environment.get("MLFLOW_TRACKING_TOKEN", ""):
            return cls(url.rstrip("/"), f"Bearer {token}")
        user = environment.get("MLFLOW_TRACKING_USERNAME", "")
        if not user:
            return cls(url.rstrip("/"))
        pair = f"{user}:{environment.get('MLFLOW_TRACKING_PASSWORD', '')}"
        return cls(url.rstrip("/"), f"Basic {base64.b64encode(pair.encode()).decode()}")

    def run(self, run_id: str) -> Mapping[str, Any]:
        """Return a run: its ``info``, and ``data`` with params, metrics and tags. Raises NotFoundError."""
        return _mapping(self._ask("GET", "runs/get", {"run_id": run_id}).get("run"))

    def runs_of(self, experiment: str) -> Iterator[Mapping[str, Any]]:
        """Yield the runs of the experiment of that name, the oldest first. Raises NotFoundError."""
        document = self._ask("GET", "experiments/get-by-name", {"experiment_name": experiment})
        body = {
            "experiment_ids": [_mapping(document.get("experiment")).get("experiment_id")],
            "max_results": _PAGE,
            "order_by": ["attributes.start_time ASC"],
        }
        return self._pages("POST", "runs/search", body, "runs")

    def versions_of(self, model: str) -> Iterator[Mapping[str, Any]]:
        """Yield the versions of a registered model, in no order. Raises NotFoundError."""
        self._ask("GET", "registered-models/get", {"name": model})
        quoted = model.replace("'", "''")
        return self._pages(
            "GET", "model-versions/search", {"filter": f"name='{quoted}'", "max_results": _PAGE}, "model_versions"
        )

    def history(self, run_id: str, metric: str) -> Iterator[Mapping[str, Any]]:
        """Yield every value of a metric of a run, with its step."""
        return self._pages("GET", "metrics/get-history", {"run_id": run_id, "metric_key": metric}, "metrics")

    def list_files(self, run_id: str) -> dict[str, int]:
        """Return all artifacts of a run by path, with their bytes. Raises LoregError for more than can be listed."""
        files: dict[str, int] = {}
        folders, seen = [""], {""}
        while folders:
            path = folders.pop()
            question = {"run_id": run_id, **({"path": path} if path else {})}
            for entry in self._pages("GET", "artifacts/list", question, "files"):
                name = str(entry.get("path") or "")
                if not is_relative_path(name):
                    continue  # it would lead out of the folder that it is downloaded to
                if not entry.get("is_dir"):
                    files[name] = int(to_number(entry.get("file_size")) or 0)
                elif name not in seen:  # a store that lists a folder in itself would be asked for ever
                    seen.add(name)
                    folders.append(name)
                if len(files) + len(seen) > _MAX_ENTRIES:
                    raise LoregError(
                        f"run {run_id} has more than {_MAX_ENTRIES:,} artifacts, too many to look for adapters",
                        hint=f"mlflow artifacts download -r {run_id} -d ./run && loreg import ./run",
                    )
        return files

    def download(self, run_id: str, path: str, size: int, target: Path) -> None:
        """Write an artifact to ``target``, which appears when all is there. Raises IntegrityError for other sizes."""
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.part")
        with partial.open("wb") as sink:
            for chunk in self._stream(run_id, path):
                sink.write(chunk)
        if partial.stat().st_size != size:
            raise IntegrityError(
                f"{path} of run {run_id} came with {partial.stat().st_size} bytes, not {size}", hint="try again"
            )
        partial.replace(target)

    def _stream(self, run_id: str, path: str) -> Iterator[bytes]:
        question = urlencode({"run_uuid": run_id, "path": path})
        response = self._send("GET", f"{self.url}/get-artifact?{question}")
        try:
            yield from response.stream(_CHUNK)
        except urllib3.exceptions.HTTPError as error:
            raise self._unavailable(error) from error
        finally:
            response.close()

    def _pages(self, method: str, route: str, body: Mapping[str, Any], items: str) -> Iterator[Mapping[str, Any]]:
        token, seen = "", {""}
        while True:
            document = self._ask(method, route, {**body, **({"page_token": token} if token else {})})
            listed = document.get(items)
            yield from (entry for entry in (listed if isinstance(listed, list) else ()) if isinstance(entry, dict))
            token = str(document.get("next_page_token") or "")
            if not token:
                return
            if token in seen:  # to stop here would leave out what comes after
                raise UnavailableError(
                    f"{self.url} names the same page of {route} twice: its list never ends",
                    hint="is it an MLflow server? see MLFLOW_TRACKING_URI",
                )
            seen.add(token)

    def _ask(self, method: str, route: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        url = f"{self.url}{_API}/{route}"
        if method == "GET":
            response = self._send(method, f"{url}?{urlencode(body)}")
        else:
            response = self._send(method, url, json.dumps(body).encode())
        try:
            document = json.loads(response.read(_MAX_JSON))
        except (ValueError, urllib3.exceptions.HTTPError) as error:
            raise self._unavailable(error) from error
        finally:
            response.release_conn()
        return document if isinstance(document, dict) else {}

    def _send(self, method: str, url: str, body: bytes | None = None) -> urllib3.BaseHTTPResponse:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        headers |= {"Authorization": self.authorization} if self.authorization else {}
        try:
            response = self._pool.request(
                method, url, body=body, headers=headers, preload_content=False, redirect=False
            )
        except urllib3.exceptions.HTTPError as error:
            raise self._unavailable(error) from error
        if response.status >= 300:
            self._raise(response)
        return response

    def _raise(self, response: urllib3.BaseHTTPResponse) -> None:
        """Raise the error that the answer stands for."""
        content = response.read(_CHUNK)
        response.release_conn()
        try:
            message = " ".join(str(json.loads(content).get("message", "")).split())[:200]
        except (ValueError, AttributeError):
            message = ""
        if response.status == 404:
            raise NotFoundError(f"{self.url}: {message or 'there is no such thing'}", hint="loreg import --help")
        if response.status in (401, 403):
            raise NotAllowedError(
                f"{self.url} wants to know who asks", hint="export MLFLOW_TRACKING_TOKEN, or …_USERNAME and …_PASSWORD"
            )
        raise UnavailableError(
            f"{self.url} answers {response.status}: {message}", hint="is it an MLflow server? see MLFLOW_TRACKING_URI"
        )

    def _unavailable(self, error: Exception) -> UnavailableError:
        reason = " ".join(str(error).split())[:160]
        return UnavailableError(f"{self.url} does not answer: {reason}", hint="check MLFLOW_TRACKING_URI, try again")


def _mapping(value: object) -> Mapping[str, Any]:
    """Return a mapping of an answer; empty if it is none, as of a server that is not MLflow's."""
    return value if isinstance(value, dict) else {}
