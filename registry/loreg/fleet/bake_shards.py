"""Bake on a cluster: every shard of the result is written by one worker, to a folder that all machines have.

A worker makes the plan of the bake once more, from the same files, and writes its shard only if it is the same plan.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from loreg.adapters.config import CONFIG_NAME
from loreg.adapters.structure import WEIGHTS_NAME, read_structure
from loreg.baking.bake import finish_shard
from loreg.baking.plan import Plan, outline_digest, sample_digest
from loreg.baking.shard import write_shard
from loreg.baking.weighted_sum import Summand, WeightedSum
from loreg.bases.model import Model, read_model
from loreg.errors import ConflictError, LoregError, NotFoundError, explain_os_errors
from loreg.fleet.executor import Executor, run_all
from loreg.fleet.versions import refuse_other_version
from loreg.version import VERSION

_SUMMANDS = "summands"


@dataclass(frozen=True)
class ShardWork:
    """One shard of ``total`` on the model at ``base``: written in the folder ``growing``, moved to ``shards``.

    Copies of the adapters lie in ``growing``. ``outline`` is the digest of the plan, ``sample`` that of the base's
    tensors, ``version`` that of loreg.
    """

    base: Path
    growing: Path
    shards: Path
    name: str
    total: WeightedSum
    outline: str
    sample: str
    version: str = VERSION

    def __str__(self) -> str:
        return f"the shard {self.name}"

    def run(self) -> int | LoregError:
        """Write the shard; return how many bytes its tensors have."""
        try:
            refuse_other_version(self.version)
            for path in (self.growing, self.base):
                if not path.exists():
                    raise NotFoundError(
                        f"{socket.gethostname()} has no {path}",
                        hint="--base and --to in folders that every machine of the cluster has at the same path",
                        outside="a machine of the cluster has no such folder",
                    )
            with explain_os_errors(self.growing, "the same command goes on where this one stopped"):
                return self._write()
        except LoregError as error:
            return error

    def _write(self) -> int:
        model = read_model(self.base)
        summands = [
            replace(summand, structure=read_structure(self.growing / _SUMMANDS / str(number)))
            for number, summand in enumerate(self.total.summands)
        ]
        plan = replace(self.total, summands=summands).plan(model)
        outputs = plan.shards.get(self.name, ())
        if (outline_digest(plan, model), sample_digest(outputs)) != (self.outline, self.sample):
            raise ConflictError(
                f"{self.base} is another model on {socket.gethostname()}",
                hint="the very same files on every machine of the cluster",
                outside="the base is another model on a machine of the cluster",
            )
        written = self.growing / f"{self.name}.{secrets.token_hex(4)}"  # nobody else's, if the shard is begun twice
        write_shard(written, outputs, 1, lambda size: None)
        finish_shard(written, self.shards / self.name)
        return sum(output.size for output in outputs)


@dataclass(frozen=True)
class ShardsOnWorkers:
    """Writes shards of a sum on a base by the workers that ``open_executor`` opens."""

    total: WeightedSum
    model: Model
    open_executor: Callable[[], Executor[ShardWork]]

    def __call__(
        self, growing: Path, shards: Path, plan: Plan, names: Sequence[str], on_bytes: Callable[[int], None]
    ) -> None:
        """See :class:`loreg.baking.bake.ShardWriter`."""
        if not names:
            return
        for number, summand in enumerate(self.total.summands):
            _copy_adapter(summand, growing / _SUMMANDS / str(number))
        outline = outline_digest(plan, self.model)
        folders = (self.model.path.resolve(), growing.resolve(), shards.resolve())
        work = [ShardWork(*folders, name, self.total, outline, sample_digest(plan.shards[name])) for name in names]
        with contextlib.closing(self.open_executor()) as executor:
            for _, size in run_all(executor, work, on_wait=lambda: on_bytes(0)):
                on_bytes(size)


def _copy_adapter(summand: Summand, folder: Path) -> None:
    folder.mkdir(parents=True)
    source = summand.structure.weights
    shutil.copyfile(source, folder / WEIGHTS_NAME)
    shutil.copyfile(source.with_name(CONFIG_NAME), folder / CONFIG_NAME)
