"""The file with which docs/how-to/fleet.md starts machines, read by Ray; tests/docs reads the other one."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "fleet.md"
needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="needs pip install 'loreg[ray]'")


def read_example(key: str) -> Any:
    """The YAML of the page that has this key."""
    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)]
    (example,) = [block for block in blocks if key in block]
    return example


@needs_ray
def test_ray_reads_the_file_of_ray_up():
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(read_example("cluster_name"))
    validate_config(config)
    (nodes,) = config["available_node_types"].values()
    assert (nodes["min_workers"], config["provider"]["head_ip"]) == (2, "10.0.0.1")


@needs_ray
def test_ray_refuses_a_field_that_it_does_not_know():
    from jsonschema import ValidationError
    from ray.autoscaler._private.util import prepare_config, validate_config

    with pytest.raises(ValidationError):
        validate_config(prepare_config({**read_example("cluster_name"), "workers": 2}))
