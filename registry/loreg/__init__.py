"""loreg: the registry that LoRA adapters lack.

>>> import loreg
>>> with loreg.connect(home="./my-registry") as registry:
...     pushed = registry.push("./science", "team/science", tasks=["qa"])
...     page = registry.search(tasks=["qa"])
>>> [version.ref for version in page]
['team/science:v1']
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loreg.version import VERSION

if TYPE_CHECKING:
    from loreg.entities import (
        AdapterComparison,
        AdapterEntry,
        AdapterSimilarity,
        BaseModel,
        CheckReport,
        Details,
        Event,
        Job,
        MergeOptions,
        MergeResult,
        Metric,
        Page,
        Provenance,
        PullResult,
        PushResult,
        SweepOptions,
        SweepResult,
        Version,
        VersionMetadata,
    )
    from loreg.errors import (
        AdapterFormatError,
        CheckFailedError,
        ConflictError,
        IntegrityError,
        LoregError,
        MergeError,
        MissingExtraError,
        NotAllowedError,
        NotFoundError,
        QuotaError,
        StaleError,
        UnauthenticatedError,
        UnavailableError,
        UsageError,
    )
    from loreg.merging.calibration import collect as collect_calibration
    from loreg.registry import Registry, connect

__version__ = VERSION
__all__ = [
    "AdapterComparison", "AdapterEntry", "AdapterFormatError", "AdapterSimilarity", "BaseModel", "CheckFailedError",
    "CheckReport", "ConflictError", "Details", "Event", "IntegrityError", "Job", "LoregError", "MergeError",
    "MergeOptions", "MergeResult", "Metric", "MissingExtraError", "NotAllowedError", "NotFoundError", "Page",
    "Provenance", "PullResult", "PushResult", "QuotaError", "Registry", "StaleError", "SweepOptions", "SweepResult",
    "UnauthenticatedError", "UnavailableError", "UsageError", "Version", "VersionMetadata", "__version__",
    "collect_calibration", "connect",
]  # fmt: skip

#: Names that are called something else where they live.
_RENAMED = {"collect_calibration": ("loreg.merging.calibration", "collect")}


def __getattr__(name: str) -> Any:
    """Import on first use: ``import loreg`` alone must cost nothing."""
    if name not in __all__:
        raise AttributeError(f"module 'loreg' has no attribute {name!r}")
    from importlib import import_module

    if name in ("connect", "Registry"):
        return getattr(import_module("loreg.registry"), name)
    module, attribute = _RENAMED.get(name, ("loreg.errors" if name.endswith("Error") else "loreg.entities", name))
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    """List the public names, also those that are not imported yet: what completion in a notebook offers."""
    return sorted(__all__)
