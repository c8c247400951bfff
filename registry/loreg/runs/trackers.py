"""Read what wandb and MLflow keep in folders beside a run: arguments, and the numbers of the finished run.

Sources: wandb ``sdk/lib/config_util.py`` and ``wandb/run-*/files``; MLflow 3.17 ``store/tracking/file_store.py``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from loreg.runs.configs import from_arguments
from loreg.runs.documents import read_json, read_text, read_yaml, to_number
from loreg.runs.facts import RunFacts, combine, select_metrics, to_text

_MAX_TRACKED = 2000  # runs that are looked into
_META = "meta.yaml"  # of a run of MLflow
_MAX_FILES = 10_000  # parameters or metrics of a run of MLflow


class Trackers:
    """The runs that trackers kept, by the folders that they lie in; each folder is looked through once."""

    def __init__(self) -> None:
        self._runs: dict[Path, tuple[tuple[str, RunFacts], ...]] = {}

    def read_run(self, run: Path) -> RunFacts:
        """Return what trackers kept of the run in the folder ``run``.

        A run of wandb or MLflow is that of the folder if it lies in it, alone, or if its ``output_dir`` ends as the
        folder does; both are looked for in the folder and in the two above it.
        """
        inside = self._list(run)
        if len(inside) == 1:
            return inside[0][1]
        for parent in (run, run.parent, run.parent.parent):
            for output, facts in self._list(parent):
                if output and run.as_posix().endswith(f"/{output}"):
                    return facts
        return RunFacts()

    def _list(self, parent: Path) -> tuple[tuple[str, RunFacts], ...]:
        """Return the runs of trackers in a folder, each with its relative ``output_dir``, the newest first."""
        if parent not in self._runs:
            files = [*_find(parent, "wandb/run-*/files"), *_find(parent, "wandb/offline-run-*/files")]
            metas = _find(parent, f"mlruns/*/*/{_META}")
            of_wandb = (_read_wandb(folder) for folder in files[:_MAX_TRACKED])
            of_mlflow = (_read_mlflow(meta.parent) for meta in metas[:_MAX_TRACKED])
            self._runs[parent] = (*of_wandb, *of_mlflow)
        return self._runs[parent]


def read_mlflow_run(adapter: Path) -> tuple[str, RunFacts] | None:
    """Return the name and the facts of the run of MLflow that ``adapter`` is an artifact of; None if it is none."""
    for parent in adapter.parents:
        if parent.name == "artifacts" and (parent.parent / _META).is_file():
            folder = parent.parent
            name = read_text(folder / "tags" / "mlflow.runName", folder).strip()
            name = name or str(read_yaml(folder / _META, folder).get("run_name") or folder.name)
            return name, _read_mlflow(folder)[1]
    return None


def _find(parent: Path, pattern: str) -> list[Path]:
    """Return what matches below ``parent`` and really lies there, the newest first."""
    try:
        place = parent.resolve()
        return [path for path in sorted(parent.glob(pattern), reverse=True) if path.resolve().is_relative_to(place)]
    except (OSError, RuntimeError):  # RuntimeError: links in a circle
        return []


def _read_wandb(files: Path) -> tuple[str, RunFacts]:
    document = read_yaml(files / "config.yaml")
    arguments = {
        name: entry["value"] for name, entry in document.items() if isinstance(entry, dict) and "value" in entry
    }
    for inner in ("model_args", "data_args", "finetuning_args"):  # as LLaMA-Factory nests them
        if isinstance(arguments.get(inner), dict):
            arguments = {**arguments[inner], **arguments}
    results = RunFacts(
        results=select_metrics(read_json(files / "wandb-summary.json")),
        versions=dict(_requirements(read_text(files / "requirements.txt"))),
    )
    return _output_of(arguments), combine([from_arguments(arguments), results])


def _requirements(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        name, _, version = line.partition("==")
        if name in ("peft", "torch", "transformers", "trl", "datasets", "axolotl", "unsloth") and version:
            yield f"{name}_version", to_text(version.strip())


def _read_mlflow(folder: Path) -> tuple[str, RunFacts]:
    arguments = {path.name: read_text(path, folder) for path in _files(folder, "params")}
    history: dict[int, dict[str, float]] = {}
    last: dict[str, float] = {}
    for path in _files(folder, "metrics"):
        name = path.relative_to(folder / "metrics").as_posix()
        for line in read_text(path, folder).splitlines():
            parts = line.split(" ")  # timestamp, value, step, and perhaps the dataset and its digest
            value = to_number(parts[1]) if len(parts) > 1 else None
            if value is not None:
                last[name] = value
                if len(parts) > 2 and parts[2].isdecimal():
                    history.setdefault(int(parts[2]), {})[name] = value
    measured = {step: numbers for step, all_ in history.items() if step and (numbers := select_metrics(all_))}
    return _output_of(arguments), combine(
        [from_arguments(arguments), RunFacts(history=measured, results=select_metrics(last))]
    )


def _files(run: Path, name: str) -> list[Path]:
    """Return the files in the folder ``name`` of a run, unless it is a link out of the run."""
    folder = run / name
    if not folder.resolve().is_relative_to(run.resolve()):
        return []
    return sorted(path for path in folder.rglob("*") if path.is_file())[:_MAX_FILES]


def _output_of(arguments: Mapping[str, Any]) -> str:
    """Return the last parts of ``output_dir``, as they may end the path of a folder; empty where there is none."""
    output = arguments.get("output_dir")
    if not isinstance(output, str) or not output.strip("./"):
        return ""
    return "/".join(part for part in PurePosixPath(output).parts[-2:] if part not in (".", "..", "/"))
