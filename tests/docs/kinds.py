"""What a block of YAML, TOML or JSON on a page is for, told from its keys and read by what reads it in earnest."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from importlib.metadata import EntryPoint, requires
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import Requirement

from docs.blocks import Block
from loreg import settings
from loreg.checking.policy import read_policy
from loreg.checking.profile import read_profile
from loreg.entities import Retention, RetentionRules
from loreg.local.audit import read_audited_pulls
from loreg.probes.probe import GROUP
from loreg.workspace.recipe_file import read_recipe_file
from loreg.workspace.retention import read_retention

ROOT = Path(__file__).parents[2]


def check_data(block: Block, folder: Path) -> None:
    """Read the block as what it is; fails if it is of no known kind or is not one of its kind."""
    if block.language == "json":
        json.loads(block.text)
        return
    document = tomllib.loads(block.text) if block.language == "toml" else yaml.safe_load(block.text)
    kinds = TOML if block.language == "toml" else YAML
    for is_one, check in kinds:
        if is_one(document):
            check(document, block.text, folder)
            return
    raise AssertionError(f"{block} is of no kind that is known here: add it to {__name__}")


def _is_policy(document: dict[str, Any], text: str, folder: Path) -> None:
    policy = read_policy(document["check"], "loreg.toml")
    assert set(document) <= set(settings.PROJECT_KEYS)
    assert policy != read_policy({}, "")


def _is_retention(document: dict[str, Any], text: str, folder: Path) -> None:
    assert set(document) <= set(settings.PROJECT_KEYS)
    assert read_retention(document["retention"], "loreg.toml") != Retention(RetentionRules())


def _is_audit(document: dict[str, Any], text: str, folder: Path) -> None:
    assert set(document) <= set(settings.PROJECT_KEYS)
    assert read_audited_pulls(document["audit"], "loreg.toml")


def _is_recipe(document: dict[str, Any], text: str, folder: Path) -> None:
    (folder / "recipe.toml").write_text(text)
    assert read_recipe_file(folder / "recipe.toml")["sources"] == document["sources"]


def _names_a_probe(document: dict[str, Any], text: str, folder: Path) -> None:
    """Read as the metadata of an installed package is."""
    ((group, probes),) = document["project"]["entry-points"].items()
    ((name, value),) = probes.items()
    assert (group, EntryPoint(name, value, group).attr) == (GROUP, "longest_name")


def _is_configuration(document: dict[str, Any], text: str, folder: Path) -> None:
    path = folder / "config" / "loreg" / "config.toml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    in_force = settings.load({}, {"XDG_CONFIG_HOME": str(folder / "config")}, folder)
    for name, value in document.items():
        assert str(getattr(in_force, name)) == value


def _is_profile(document: dict[str, Any], text: str, folder: Path) -> None:
    path = folder / "profile.toml"
    path.write_text(text)
    assert read_profile(str(path))


def _calls_the_action(document: dict[str, Any], text: str, folder: Path) -> None:
    inputs = yaml.safe_load((ROOT / "action.yml").read_text())["inputs"]
    needed = {name for name, described in inputs.items() if described.get("required")}
    steps = [step for job in document["jobs"].values() for step in job["steps"] if "/loreg@" in step.get("uses", "")]
    assert steps
    for step in steps:
        assert needed <= set(step["with"]) <= set(inputs)


def _is_a_hook(document: dict[str, Any], text: str, folder: Path) -> None:
    offered = {hook["id"] for hook in yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())}
    for repository in document["repos"]:
        assert repository["rev"]
        assert {hook["id"] for hook in repository["hooks"]} <= offered


def _is_a_gitlab_job(document: dict[str, Any], text: str, folder: Path) -> None:
    assert document == yaml.safe_load((ROOT / "examples" / "gitlab-ci.yml").read_text())


def _overrides_compose(document: dict[str, Any], text: str, folder: Path) -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    for name, change in document["services"].items():
        assert name in services
        assert set(change) <= {"ports", "volumes", "environment", "command"}
        for port in change.get("ports", []):
            assert port.startswith("127.0.0.1:"), "a published port is for this machine alone"


def _runs_a_follower_in_compose(document: dict[str, Any], text: str, folder: Path) -> None:
    server, follower = document["services"]["nim"], document["services"]["adapters"]
    directory = _read_sync(follower["command"])
    volume, mounted = follower["volumes"][0].split(":")
    assert volume in document["volumes"]
    at_server = server["volumes"][0].removesuffix(":ro").removeprefix(f"{volume}:")
    assert server["environment"]["NIM_PEFT_SOURCE"] == at_server + directory.removeprefix(mounted)
    assert follower["environment"].keys() <= {f"LOREG_{key.upper()}" for key in settings.KEYS}


def _runs_a_follower_in_a_pod(document: dict[str, Any], text: str, folder: Path) -> None:
    (follower,), (server,) = document["spec"]["initContainers"], document["spec"]["containers"]
    (place,) = (variable["value"] for variable in server["env"] if variable["name"].endswith("_CACHE_DIR"))
    for container in (follower, server):
        (mount,) = container["volumeMounts"]
        assert (mount["name"], mount["mountPath"]) == (document["spec"]["volumes"][0]["name"], place)
    assert follower["restartPolicy"] == "Always", "else the server waits for it to end"
    assert _read_sync(follower["args"]) == place
    assert {variable["name"] for variable in follower["env"]} <= {f"LOREG_{key.upper()}" for key in settings.KEYS}


def _starts_machines(document: dict[str, Any], text: str, folder: Path) -> None:
    """For ``ray up``; tests/fleet/test_examples.py holds it against Ray's schema."""
    assert document["min_workers"] == len(document["provider"]["worker_ips"])
    commands = document["head_start_ray_commands"] + document["worker_start_ray_commands"]
    assert all("RAY_AUTH_MODE=token" in command for command in commands if "ray start" in command)


#: Fields of ray.io/v1: apis/ray/v1/raycluster_types.go of kuberay.
_CLUSTER_FIELDS = {"headGroupSpec", "workerGroupSpecs", "rayVersion", "enableInTreeAutoscaling", "autoscalerOptions"}
_HEAD_FIELDS = {"rayStartParams", "template", "serviceType", "headService", "enableIngress"}
_WORKER_FIELDS = {
    "groupName", "replicas", "minReplicas", "maxReplicas", "numOfHosts", "rayStartParams", "template", "scaleStrategy",
}  # fmt: skip


def _is_a_ray_cluster(document: dict[str, Any], text: str, folder: Path) -> None:
    """On Kubernetes; the head alone knows the database."""
    assert document["apiVersion"] == "ray.io/v1"
    head, (workers,) = document["spec"]["headGroupSpec"], document["spec"]["workerGroupSpecs"]
    assert document["spec"].keys() <= _CLUSTER_FIELDS
    assert head.keys() <= _HEAD_FIELDS
    assert workers.keys() <= _WORKER_FIELDS
    (of_head,), (of_workers,) = (group["template"]["spec"]["containers"] for group in (head, workers))
    assert of_head["image"] == of_workers["image"]
    secrets = [{source["secretRef"]["name"] for source in one["envFrom"]} for one in (of_head, of_workers)]
    assert secrets == [{"loreg-nodes", "loreg-database"}, {"loreg-nodes"}]
    extra = next(needed for needed in map(Requirement, requires("loreg") or ()) if needed.name == "ray")
    assert extra.specifier.contains(of_head["image"].rpartition(":")[2])


def _read_sync(arguments: list[str]) -> str:
    """Return the folder that a command names, read as the command line reads it."""
    from loreg_cli.sync import sync

    assert arguments[0] == "sync"
    context = sync.make_context("sync", arguments[1:])
    assert context.params["watch"]
    directory: str = arguments[2]
    return directory


Kind = tuple[Callable[[dict[str, Any]], bool], Callable[[dict[str, Any], str, Path], None]]
TOML: tuple[Kind, ...] = (
    (lambda document: "check" in document, _is_policy),
    (lambda document: "retention" in document, _is_retention),
    (lambda document: "audit" in document, _is_audit),
    (lambda document: "sources" in document, _is_recipe),
    (lambda document: "rules" in document, _is_profile),
    (lambda document: "project" in document, _names_a_probe),
    (lambda document: bool(document) and set(document) <= set(settings.KEYS), _is_configuration),
)
YAML: tuple[Kind, ...] = (
    (lambda document: "jobs" in document, _calls_the_action),
    (lambda document: "repos" in document, _is_a_hook),
    (lambda document: "check adapters" in document, _is_a_gitlab_job),
    (lambda document: "nim" in document.get("services", {}), _runs_a_follower_in_compose),
    (lambda document: "services" in document, _overrides_compose),
    (lambda document: "initContainers" in document.get("spec", {}), _runs_a_follower_in_a_pod),
    (lambda document: "cluster_name" in document, _starts_machines),
    (lambda document: document.get("kind") == "RayCluster", _is_a_ray_cluster),
)
