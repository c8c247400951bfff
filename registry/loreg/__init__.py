"""loreg: the registry that LoRA adapters lack.

>>> import loreg
>>> with loreg.connect(home="./my-registry") as registry:
...     pushed = registry.push("./science", "team/science", tasks=["qa"])
...     found = registry.search(tasks=["qa"])
>>> [version.ref for version in found.items]
['team/science:v1']
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loreg.version import VERSION

if TYPE_CHECKING:
    from loreg.entities import MergeOptions, VersionMetadata
    from loreg.errors import LoregError
    from loreg.merging.calibration import collect as collect_calibration
    from loreg.registry import Registry, connect

__version__ = VERSION
__all__ = [
    "LoregError", "MergeOptions", "Registry", "VersionMetadata", "__version__", "collect_calibration", "connect",
]  # fmt: skip

_HOMES = {
    "connect": ("loreg.registry", "connect"),
    "Registry": ("loreg.registry", "Registry"),
    "MergeOptions": ("loreg.entities", "MergeOptions"),
    "VersionMetadata": ("loreg.entities", "VersionMetadata"),
    "LoregError": ("loreg.errors", "LoregError"),
    "collect_calibration": ("loreg.merging.calibration", "collect"),
}


def __getattr__(name: str) -> Any:
    """Import on first use: ``import loreg`` alone must cost nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'loreg' has no attribute {name!r}")
    from importlib import import_module

    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)
