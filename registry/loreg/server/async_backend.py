"""The backend for routes that share the event loop: ``await backend.show(ref)``; the loop goes on meanwhile."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial, wraps
from typing import Concatenate, ParamSpec, TypeVar

from loreg.local.backend import LocalBackend

P = ParamSpec("P")
R = TypeVar("R")


class AsyncBackend:
    """The methods of :class:`loreg.backend.Backend` that ask the catalog alone, to be awaited.

    What reads the store too, or computes, has no place on the event loop: its routes are plain functions, which
    FastAPI runs in threads, and take the ``local`` backend itself.
    """

    def __init__(self, local: LocalBackend) -> None:
        self.local = local

    async def run(self, call: Callable[Concatenate[LocalBackend, P], R], *args: P.args, **options: P.kwargs) -> R:
        """Return what ``call`` returns for the local backend and these arguments."""
        return await self.local.catalog.run_async(partial(call, self.local, *args, **options))

    @staticmethod
    def _awaited(
        method: Callable[Concatenate[LocalBackend, P], R],
    ) -> Callable[Concatenate[AsyncBackend, P], Awaitable[R]]:
        @wraps(method)
        async def call(self: AsyncBackend, /, *args: P.args, **options: P.kwargs) -> R:
            return await self.run(method, *args, **options)

        return call

    add_metrics = _awaited(LocalBackend.add_metrics)
    adapters = _awaited(LocalBackend.adapters)
    base = _awaited(LocalBackend.base)
    base_summaries = _awaited(LocalBackend.base_summaries)
    base_path = _awaited(LocalBackend.base_path)
    bases = _awaited(LocalBackend.bases)
    begin_pull = _awaited(LocalBackend.begin_pull)
    cancel_job = _awaited(LocalBackend.cancel_job)
    create_token = _awaited(LocalBackend.create_token)
    count_findings = _awaited(LocalBackend.count_findings)
    declare_metric = _awaited(LocalBackend.declare_metric)
    deployments = _awaited(LocalBackend.deployments)
    descendants = _awaited(LocalBackend.descendants)
    drop_export = _awaited(LocalBackend.drop_export)
    events = _awaited(LocalBackend.events)
    export = _awaited(LocalBackend.export)
    facets = _awaited(LocalBackend.facets)
    facts = _awaited(LocalBackend.facts)
    job = _awaited(LocalBackend.job)
    jobs = _awaited(LocalBackend.jobs)
    lineage = _awaited(LocalBackend.lineage)
    metric_summaries = _awaited(LocalBackend.metric_summaries)
    search_words = _awaited(LocalBackend.search_words)
    metric_vocabulary = _awaited(LocalBackend.metric_vocabulary)
    namespaces = _awaited(LocalBackend.namespaces)
    related_bases = _awaited(LocalBackend.related_bases)
    record_upgrade = _awaited(LocalBackend.record_upgrade)
    report_deployment = _awaited(LocalBackend.report_deployment)
    revoke_token = _awaited(LocalBackend.revoke_token)
    search = _awaited(LocalBackend.search)
    select = _awaited(LocalBackend.select)
    set_public = _awaited(LocalBackend.set_public)
    set_yanked = _awaited(LocalBackend.set_yanked)
    show = _awaited(LocalBackend.show)
    submit = _awaited(LocalBackend.submit)
    tag = _awaited(LocalBackend.tag)
    task_summaries = _awaited(LocalBackend.task_summaries)
    tokens = _awaited(LocalBackend.tokens)
    untag = _awaited(LocalBackend.untag)
    upgrade_verdicts = _awaited(LocalBackend.upgrade_verdicts)
    usage = _awaited(LocalBackend.usage)
    whoami = _awaited(LocalBackend.whoami)
    versions = _awaited(LocalBackend.versions)
    with_content = _awaited(LocalBackend.with_content)
    with_file = _awaited(LocalBackend.with_file)
    webhooks = _awaited(LocalBackend.webhooks)
    add_webhook = _awaited(LocalBackend.add_webhook)
    remove_webhook = _awaited(LocalBackend.remove_webhook)
    rotate_webhook = _awaited(LocalBackend.rotate_webhook)
    enable_webhook = _awaited(LocalBackend.enable_webhook)
    ping_webhook = _awaited(LocalBackend.ping_webhook)
    webhook_deliveries = _awaited(LocalBackend.webhook_deliveries)
    redeliver = _awaited(LocalBackend.redeliver)
    begin_canary = _awaited(LocalBackend.begin_canary)
    end_canary = _awaited(LocalBackend.end_canary)
    promote = _awaited(LocalBackend.promote)
    promotions = _awaited(LocalBackend.promotions)
    alias_shares = _awaited(LocalBackend.alias_shares)
    canaries = _awaited(LocalBackend.canaries)
