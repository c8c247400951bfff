"""A callback for transformers' Trainer, and for TRL's, that publishes the adapter while it is trained.

trainer = Trainer(..., callbacks=[PublishCallback("team/policy", publish_steps=10, alias="live")])
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from loreg.errors import LoregError, UsageError

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments

    from loreg.registry import Registry

_log = logging.getLogger("loreg.publish")


class PublishCallback(TrainerCallback):
    """Publishes the adapter while it is trained, and at the end.

    Every ``publish_steps`` steps, by default whenever the trainer saves. ``alias`` is moved to each version. The
    registry is that of the settings in force, unless one is given. A step at which the registry does not answer is told
    and left out; the last adapter must be stored: an error at the end of the training is raised.
    """

    def __init__(
        self,
        name: str,
        *,
        publish_steps: int | None = None,
        alias: str = "",
        base: str | None = None,
        labels: Mapping[str, str] | None = None,
        registry: Registry | None = None,
    ) -> None:
        from loreg.registry import connect

        if publish_steps is not None and publish_steps < 1:
            raise UsageError(f"publish_steps is {publish_steps}, expected 1 or more", hint="publish_steps=100")
        self._name, self._publish_steps, self._alias, self._base = name, publish_steps, alias, base
        self._labels = dict(labels or {})
        self._registry = registry if registry is not None else connect()
        self._last_step = -1
        #: How many steps could not be published.
        self.missed = 0

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any) -> None:
        """Publish if it is time to."""
        if self._publish_steps is not None and state.global_step % self._publish_steps == 0:
            self._publish_or_tell(state, more["model"])

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any) -> None:
        """Publish where no number of steps was given."""
        if self._publish_steps is None:
            self._publish_or_tell(state, more["model"])

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any) -> None:
        """Publish the last adapter. Raises the registry's error."""
        if state.is_world_process_zero and state.global_step != self._last_step:
            self._publish(state, more["model"])

    def _publish_or_tell(self, state: TrainerState, model: Any) -> None:
        if not state.is_world_process_zero:
            return
        try:
            self._publish(state, model)
        except LoregError as error:
            self.missed += 1
            _log.warning("step %d of %s is not published: %s", state.global_step, self._name, error)

    def _publish(self, state: TrainerState, model: Any) -> None:
        aliases = [self._alias] if self._alias else []
        pushed = self._registry.publish(
            model, self._name, step=state.global_step, aliases=aliases, base=self._base, labels=self._labels
        )
        self._last_step = state.global_step
        _log.info("step %d is %s", state.global_step, pushed.version.pinned)
