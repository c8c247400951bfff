"""The public API: open a registry with :func:`connect`; every command of the command line is a method of it.

Come here to see what loreg can do from Python. Groups of commands are attributes: ``registry.bases.add``,
``registry.tokens.create``, ``registry.jobs.wait``. A verb is imported when it is called: listing costs no torch.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from loreg.backend import Backend
from loreg.entities import (
    Access,
    AdapterComparison,
    AdapterDiff,
    AdapterEntry,
    AdapterSpectra,
    AliasShares,
    BackupReport,
    BakeResult,
    Caller,
    Canary,
    CheckReport,
    Deletion,
    DeployedVersion,
    Deployment,
    DeploymentReport,
    Details,
    DoctorCheck,
    Event,
    ExportResult,
    ExtractResult,
    Facets,
    FindingCounts,
    FollowedEvent,
    ForgetReport,
    GcReport,
    Identification,
    ImportOptions,
    ImportReport,
    Job,
    JobKind,
    KeptAdapter,
    LineageEdge,
    MapOptions,
    MapReport,
    MergeOptions,
    MergePreview,
    MergeResult,
    Metric,
    MetricDeclared,
    MetricSummary,
    MirrorReport,
    MoveReport,
    NearDuplicates,
    Page,
    Progress,
    Promotion,
    PruneReport,
    PullResult,
    PushResult,
    Query,
    RepairReport,
    ReproduceResult,
    RestoreReport,
    SearchPage,
    SketchReport,
    Snapshot,
    SnapshotList,
    SnapshotRules,
    SweepOptions,
    SweepResult,
    SyncOptions,
    SyncReport,
    TaskSummary,
    UpgradeReport,
    Usage,
    UsageBy,
    VerifyReport,
    Version,
    VersionFacts,
    VersionMetadata,
    no_progress,
)
from loreg.errors import LoregError, NotAllowedError, NotFoundError, UsageError
from loreg.parsing import (
    format_span,
    parse_conditions,
    parse_event_filter,
    parse_order,
    parse_share,
    parse_span,
)
from loreg.refs import parse_adapter_name, parse_adapter_pattern, parse_alias, parse_ref, source_text
from loreg.requests import beside_the_store
from loreg.settings import Settings, load, mask_url
from loreg.storage import BlobTransfer, DocumentStore
from loreg.verbs.jobs import Jobs
from loreg.verbs.metrics import find_slips, parse_metrics
from loreg.verbs.tokens import Namespaces, Tokens
from loreg.verbs.webhooks import Webhooks
from loreg.workspace.progress_bars import draws_progress, is_notebook

if TYPE_CHECKING:
    from loreg.verbs.bases import Bases
    from loreg.verbs.import_runs import PlannedImport
    from loreg.verbs.publish import TrainedModel
    from loreg.verbs.verify import Selection
    from loreg.workspace.context import Context

R = TypeVar("R")


def connect(
    *,
    home: Path | str | None = None,
    database_url: str | None = None,
    storage_url: Path | str | None = None,
    storage_endpoint: str | None = None,
    endpoint: str | None = None,
    token: str | None = None,
    author: str | None = None,
    progress: bool | None = None,
) -> Registry:
    """Open the registry of the settings in force: arguments > ``LOREG_*`` > user file > ``loreg login``.

    With ``endpoint`` the registry is that of a loreg server, asked with ``token``; else database and store are used
    directly. What an argument names goes before all the rest: with ``home`` it is the registry in that folder. Nothing
    is contacted before the first verb. A method that is given no ``progress`` of its own shows how far it is if
    ``progress`` is True, and by default in a notebook. Raises UsageError for a setting that is not understood, and for
    an endpoint together with a registry on this machine.

    >>> with connect(home="./my-registry", author="ada") as registry:
    ...     registry.settings.author, registry.adapters().items
    ('ada', ())
    """
    flags = {
        "home": None if home is None else os.fspath(home),
        "database_url": database_url,
        "storage_url": None if storage_url is None else os.fspath(storage_url),
        "storage_endpoint": storage_endpoint,
        "endpoint": endpoint,
        "token": token,
        "author": author,
    }
    settings = load(flags, os.environ)
    for text in settings.notes:
        warnings.warn(text, stacklevel=2)
    return Registry(settings, shows_progress=is_notebook() if progress is None else progress)


@draws_progress
class Registry:
    """A registry on this machine or behind a server. Close it when done, or use it in a ``with`` statement.

    Where a folder may stand, a path object is one: ``Path("x")`` is the folder, ``"./x"`` too, ``"x"`` the adapter.
    Every method may raise NotAllowedError and UnavailableError; a ref that means nothing raises NotFoundError, one
    that does not parse UsageError. In the examples of its methods ``registry`` is an empty one, and the folders
    ``science`` and ``history`` hold adapters of rank 2 of the model in ``base``.

    >>> registry.show("team/science")
    Traceback (most recent call last):
    ...
    loreg.errors.NotFoundError: there is no adapter 'team/science'. Hint: loreg ls
    """

    def __init__(
        self,
        settings: Settings,
        *,
        on_job: Callable[[Job], None] = lambda job: None,
        shows_progress: bool = False,
    ) -> None:
        """Open it; ``on_job`` is called with each job that a method is about to wait for.

        With ``shows_progress`` methods that are given no ``progress`` draw bars.
        """
        self.settings, self.shows_progress = settings, shows_progress
        self._on_job = on_job
        self._connection = _open_server(settings) if settings.endpoint else _open_local(settings)
        self._backend = self._connection.backend

    @cached_property
    def context(self) -> Context:
        """What verbs work on: the backend, the store, a cache of digests, the policy."""
        from loreg.checking.policy import read_policy
        from loreg.workspace.context import Context

        policy = read_policy(self.settings.check, self.settings.origin["check"])
        return Context(self._backend, self._connection.store, self.settings.home / "cache" / "bases", policy)

    # Groups of commands

    @cached_property
    def bases(self) -> Bases:
        """Base models by content: add, list, show, match, relate."""
        from loreg.verbs.bases import Bases

        return Bases(self.context, shows_progress=self.shows_progress)

    @cached_property
    def tokens(self) -> Tokens:
        """Tokens of a server: create, list, revoke."""
        return Tokens(self._backend)

    @cached_property
    def namespaces(self) -> Namespaces:
        """Who may read which adapters of a server: list, set_public."""
        return Namespaces(self._backend)

    @cached_property
    def webhooks(self) -> Webhooks:
        """Other programs that are told of what happens: add, list, test, rotate, remove."""
        return Webhooks(self._backend)

    @cached_property
    def jobs(self) -> Jobs:
        """Work for workers: submit, show, list, cancel, wait."""
        return Jobs(self._backend, shows_progress=self.shows_progress)

    # Adapters in and out

    def push(
        self,
        folder: Path | str,
        name: str,
        *,
        base: Path | str | None = None,
        tasks: Sequence[str] = (),
        metrics: Sequence[str | Metric] = (),
        labels: Mapping[str, str] | None = None,
        aliases: Sequence[str] = (),
        message: str = "",
        checkpoint: str = "",
        progress: Progress = no_progress,
    ) -> PushResult:
        """Store the adapter in ``folder`` as the next version of ``name``.

        Content that ``name`` has already makes no new version; tasks, metrics, labels and aliases are then added to
        the one that is there. ``base`` is the path of the model it was trained on, or a name or digest that the
        registry knows. With ``checkpoint``, which is ``best``, ``last`` or a step, the folder is that of a training
        run, and what is not said here is read from what the trainer wrote. Raises UsageError, NotFoundError,
        AdapterFormatError, CheckFailedError, IntegrityError or ConflictError; then nothing is recorded.

        >>> pushed = registry.push("./science", "team/science", base="./base", aliases=["prod"])
        >>> pushed.created, pushed.version.ref, pushed.version.aliases, pushed.version.facts.rank_max
        (True, 'team/science:v1', ('prod',), 2)
        >>> registry.push("./science", "team/science").created
        False
        """
        from loreg.verbs.push import push

        metadata = VersionMetadata(tasks, metrics, labels or {}, aliases, message)
        model = _optional_source(base)
        return push(self.context, folder, name, metadata, base=model, checkpoint=checkpoint, progress=progress)

    def publish(
        self,
        source: TrainedModel | Path | str,
        name: str,
        *,
        step: int | None = None,
        adapter: str | None = None,
        state_dict: Mapping[str, Any] | None = None,
        base: Path | str | None = None,
        aliases: Sequence[str] = (),
        metrics: Sequence[str | Metric] = (),
        labels: Mapping[str, str] | None = None,
        message: str = "",
    ) -> PushResult:
        """Store what a trainer holds as the next version of ``name``; return when it is durable.

        ``source`` is a model of PEFT, whose ``adapter`` is named where it has several, or the folder of an adapter.
        ``state_dict`` has its tensors where they had to be gathered first, as under FSDP and DeepSpeed ZeRO-3. ``step``
        becomes the label ``step``. Only files that the registry has not are sent. Raises what :meth:`push` raises.

        >>> published = registry.publish(Path("science"), "team/policy", step=100, aliases=["live"])
        >>> published.version.ref, dict(published.version.labels), published.version.aliases
        ('team/policy:v1', {'step': '100'}, ('live',))
        """
        from loreg.verbs.publish import publish

        return publish(
            self.context,
            source,
            name,
            step=step,
            adapter=adapter,
            state_dict=state_dict,
            base=_optional_source(base),
            aliases=aliases,
            metrics=metrics,
            labels=labels,
            message=message,
        )

    def plan_import(
        self,
        paths: Sequence[Path | str],
        options: ImportOptions = ImportOptions(),
        *,
        progress: Progress = no_progress,
    ) -> PlannedImport:
        """Say what importing the adapters below the folders ``paths`` would do; ``run()`` of the answer does it.

        A path may be of the Hub: ``hf:ORG/NAME[@REV]``, ``hf:ORG`` or ``hf:collections/…``; weights that the registry
        has are told by their sha256 there, and not downloaded.
        Read are runs of Trainer, TRL, axolotl, unsloth, LLaMA-Factory and torchtune with all of their checkpoints,
        folders of named adapters, and trees of these. Names come from the folders; metrics, tasks, dataset, seed,
        arguments and versions from what the trainer wrote. Content that the registry has already is not stored again.
        No pickle is opened, and nothing is stored before ``run()``. Raises NotFoundError if there is no adapter,
        UsageError for options that do not fit.

        >>> planned = registry.plan_import(["./science"], ImportOptions(namespace="team"))
        >>> [(str(version.adapter), version.number, str(version.status)) for version in planned.plan.versions]
        [('team/science', 1, 'new')]
        >>> planned.run().created[0].partition("@")[0]
        'team/science:v1'
        """
        from loreg.verbs.import_runs import plan_folders

        options = msgspec.structs.replace(options, base=_optional_source(options.base))
        return plan_folders(self.context, paths, options, progress)

    def import_runs(
        self,
        paths: Sequence[Path | str],
        options: ImportOptions = ImportOptions(),
        *,
        progress: Progress = no_progress,
    ) -> ImportReport:
        """Import the adapters below the folders ``paths``, as :meth:`plan_import` plans it.

        One that cannot come in is named in the report, and the others go on; a second call takes only what is new.

        >>> registry.import_runs(["./science", "./history"]).failures
        ()
        """
        return self.plan_import(paths, options, progress=progress).run(progress)

    def pull(
        self,
        ref: str,
        folder: Path | str | None = None,
        *,
        profile: Path | str | None = None,
        with_base_hint: bool = False,
        verify: bool = False,
        progress: Progress = no_progress,
    ) -> PullResult:
        """Write the files of the version that ``ref`` means to ``folder`` (default: ``./name``).

        A folder that holds exactly these files already is left as it is; one that holds anything else is refused.
        What an interrupted pull left is gone on with. With ``profile``, e.g. ``vllm:max_lora_rank=64``, the files are
        those that :meth:`export` makes of it for that server; the registry makes them once and stores them. With
        ``verify`` they are made here from the version's own files, and what is stored must be the same.
        ``with_base_hint`` writes the base's path on the pusher's machine into the configuration. Raises ConflictError,
        IntegrityError, and CheckFailedError for what the server cannot be given.

        >>> pushed = registry.push("./science", "team/science")
        >>> pulled = registry.pull("team/science", "./pulled")
        >>> sorted(path.name for path in pulled.folder.iterdir())
        ['adapter_config.json', 'adapter_model.safetensors']
        >>> registry.pull("team/science", "./pulled").downloaded  # bytes
        0
        """
        from loreg.verbs.pull import pull

        return pull(
            self.context,
            ref,
            folder,
            profile=_optional_source(profile),
            with_base_hint=with_base_hint,
            verify=verify,
            progress=progress,
        )

    def sync(
        self,
        selection: str | Sequence[str] | Query,
        folder: Path | str | None = None,
        options: SyncOptions = SyncOptions(),
        *,
        progress: Progress = no_progress,
    ) -> SyncReport:
        """Bring ``folder`` to what the selection means now: of each adapter its version, under the adapter's name.

        A selection is selectors, ``team/*:prod``, ``team/news:v3`` or ``NAME=team/news:prod``, or a query of a search.
        A name is a link to a folder by digest, replaced at once when the version is there and verified; what is not
        selected any more is removed. An answer older than what the folder has changes nothing. Raises ConflictError for
        the folder of another registry, UnderWayError if another process writes it; what cannot be shown alone is in the
        report's ``problems``. With ``options.servers`` running servers load from the folder, which may be left out.

        >>> pushed = registry.push("./science", "team/science", aliases=["prod"])
        >>> report = registry.sync("team/*:prod", "./adapters")
        >>> [(adapter.name, adapter.ref) for adapter in report.updated], report.is_complete
        ([('team/science', 'team/science:v1')], True)
        >>> Path("./adapters/team/science/adapter_config.json").exists()
        True
        """
        from loreg.verbs.sync import sync

        return sync(self.context, self.settings, selection, folder, options, progress)

    def follow(
        self,
        selection: str | Sequence[str] | Query,
        folder: Path | str | None = None,
        options: SyncOptions = SyncOptions(),
    ) -> Iterator[SyncReport | LoregError]:
        """Keep ``folder`` as :meth:`sync` makes it while the selection's meaning changes, until you stop asking.

        Yields a report for the first round and for each in which something changed, usually less than a second after
        the change; and the error, once, while the registry does not answer: the folder then stays as it is.

        >>> pushed = registry.push("./science", "team/science", aliases=["prod"])
        >>> reports = registry.follow("team/*:prod", "./adapters")
        >>> next(reports).adapters[0].ref
        'team/science:v1'
        >>> pushed = registry.push("./history", "team/science", aliases=["prod"])
        >>> next(reports).updated[0].ref
        'team/science:v2'
        >>> reports.close()
        """
        from loreg.verbs.sync import follow

        return follow(self.context, self.settings, selection, folder, options)

    def export(
        self,
        source: Path | str,
        profile: Path | str,
        folder: Path | str,
        *,
        base: Path | str | None = None,
        dtype: str | None = None,
        progress: Progress = no_progress,
    ) -> ExportResult:
        """Write the adapter of a ref or folder to the new ``folder`` as the server of ``profile`` takes it.

        Only what that server refuses or gets silently wrong is changed: scales go into B, ranks are padded or cut
        down, missing modules become zeros, names become the base's, fields that it does not read are left out. Names
        of wrappers and adapters, and stacked experts, become what PEFT writes, for every server. ``base`` is the
        model's path or a name that the registry knows; by default the one that the version was pushed with. ``dtype``
        is float32, float16 or bfloat16, by default that of each tensor. ``loreg_export.json`` says what was done, and
        how far each delta moved. Raises CheckFailedError for what cannot be mended, UsageError and what pulling
        raises; then nothing is written.

        >>> exported = registry.export("./science", "vllm:max_lora_rank=16", "./served")
        >>> sorted(path.name for path in exported.folder.iterdir()), exported.fitted.epsilon
        (['adapter_config.json', 'adapter_model.safetensors', 'loreg_export.json'], 0.0)
        """
        from loreg.verbs.export import export

        return export(
            self.context,
            source_text(source),
            source_text(profile),
            folder,
            base=_optional_source(base),
            dtype=dtype,
            progress=progress,
        )

    def drop_export(self, ref: str, profile: str) -> None:
        """Forget what the registry made of the version for the server of ``profile``; the next pull has it made again.

        Whoever had it made may do so, and an administrator of the namespace.

        >>> pushed = registry.push("./science", "team/science")
        >>> pulled = registry.pull("team/science", "./served", profile="vllm:max_lora_rank=16")
        >>> registry.drop_export("team/science", "vllm:max_lora_rank=16")
        """
        from loreg.verbs.export import drop_export

        drop_export(self.context, ref, profile)

    # Combining adapters

    def merge(
        self,
        sources: Sequence[Path | str],
        options: MergeOptions = MergeOptions(),
        *,
        base: Path | str | None = None,
        calibration: Path | str | None = None,
        name: str | None = None,
        metadata: VersionMetadata = VersionMetadata(),
        folder: Path | str | None = None,
        device: str = "auto",
        on: str = "",
        plot: Path | str | None = None,
        progress: Progress = no_progress,
    ) -> MergeResult:
        """Merge the refs or folders ``sources`` as ``options`` say: by default ``Σ weights·deltas``, exactly.

        Pushed as the next version of ``name`` with ``metadata``, or written to the new ``folder``; with neither, only
        certified. A folder that holds this very merge is left as it is. ``base`` is the path of the model that DoRA
        needs, ``calibration`` the cross moments that ``regmean`` needs, ``device`` cpu, cuda or auto, ``plot`` a PNG to
        draw. ``on`` a cluster, as in :meth:`map`, one of its machines merges, with cuda one that has a GPU; the
        adapters travel to it. Raises UsageError, MergeError and what pushing and pulling raise; then nothing is
        written.

        >>> merged = registry.merge(["./science", "./history"], MergeOptions([0.5, 0.5]), name="team/both")
        >>> merged.pushed.version.ref, merged.pushed.version.facts.rank_max
        ('team/both:v1', 4)
        >>> total = merged.provenance.certificate["total"]
        >>> total["epsilon"], total["retention"]
        (0.0, [1.0, 1.0])
        """
        from loreg.verbs.merge import merge

        return merge(
            self.context,
            [source_text(source) for source in sources],
            _with_texts(options),
            base=base,
            calibration=calibration,
            device=device,
            on=on,
            name=name,
            metadata=metadata,
            folder=folder,
            plot=plot,
            progress=progress,
        )

    def preview_merge(
        self,
        sources: Sequence[str],
        weights: Sequence[float] | None = None,
        *,
        rank: int | None = None,
        method: str = "linear",
    ) -> MergePreview:
        """Say what :meth:`merge` of the refs ``sources`` would keep and lose, without making it: no torch is needed.

        By ``linear``, the exact weighted sum, ``slerp``, ``karcher`` or ``model_stock``, truncated at ``rank`` in every
        module; without one nothing is lost. The files are read by the first preview of these versions alone. Raises
        UsageError, NotFoundError, CheckFailedError for two bases, MergeError for what cannot be merged, NotAllowedError
        for what is too much for a registry to compute, and ConflictError while it reads others.

        >>> pushed = [registry.push(f"./{name}", f"team/{name}") for name in ("science", "history")]
        >>> preview = registry.preview_merge(["team/science", "team/history"], [0.7, 0.3], rank=2)
        >>> preview.total.rank, round(preview.total.epsilon, 3), preview.exact
        (2, 0.394, True)
        """
        weights = [1.0] * len(sources) if weights is None else weights
        return self._backend.preview_merge(tuple(map(parse_ref, sources)), tuple(map(float, weights)), rank, method)

    def spectra(self, ref: str) -> AdapterSpectra:
        """Return the singular values of the deltas of the version that ``ref`` means; no torch is needed.

        Its files are read the first time. Raises NotFoundError, MergeError for an adapter whose deltas are not its
        factors alone (DoRA, PiSSA), NotAllowedError for what is too much for a registry to compute, and ConflictError
        while it reads others.

        >>> version = registry.push("./science", "team/science").version
        >>> spectra = registry.spectra(version.ref)
        >>> [(module.module, round(module.norm, 3), module.stable_rank) for module in spectra.modules]
        [('layers.0.q_proj', 2.828, 2.0)]
        >>> spectra.retained
        (0.0, 0.5, 1.0)
        """
        return self._backend.spectra(parse_ref(ref))

    def compare_versions(self, refs: Sequence[str]) -> AdapterComparison:
        """Measure how alike stored versions are, every two of 2 to 16, as :meth:`compare` does: no torch is needed.

        The files are read the first time. Raises what :meth:`preview_merge` raises.

        >>> pushed = [registry.push(f"./{name}", f"team/{name}") for name in ("science", "history")]
        >>> [(pair.b, pair.cosine) for pair in registry.compare_versions(["team/science", "team/history"])]
        [('team/history:v1', 0.0)]
        """
        return self._backend.compare_versions(tuple(map(parse_ref, refs)))

    def rerank(
        self,
        source: Path | str,
        rank: int | Mapping[str, object] | None,
        *,
        calibration: Path | str | None = None,
        initial: Sequence[Path | str] = (),
        base: Path | str | None = None,
        name: str | None = None,
        metadata: VersionMetadata = VersionMetadata(),
        folder: Path | str | None = None,
        device: str = "auto",
        on: str = "",
        plot: Path | str | None = None,
        progress: Progress = no_progress,
    ) -> MergeResult:
        """Make the best approximation of one adapter at other ranks; a number above its rank pads with zeros.

        ``rank`` is that of :class:`MergeOptions`. With ``calibration``, a file of second moments, the best on that
        data. The rest is as for :meth:`merge`. Best is in the Frobenius norm (Eckart and Young 1936).

        >>> total = registry.rerank("./science", 1).provenance.certificate["total"]
        >>> total["rank"], round(total["epsilon"], 3)  # of two equal singular values one is lost
        (1, 0.707)
        """
        from loreg.verbs.merge import merge

        return merge(
            self.context,
            [source_text(source)],
            MergeOptions(rank=rank, initial=[source_text(adapter) for adapter in initial]),
            base=base,
            calibration=calibration,
            device=device,
            on=on,
            name=name,
            metadata=metadata,
            folder=folder,
            plot=plot,
            progress=progress,
        )

    def k_merge(
        self,
        sources: Sequence[Path | str],
        keep: int,
        *,
        rank: int | Mapping[str, object] | None = None,
        base: Path | str | None = None,
        name: str | None = None,
        folder: Path | str | None = None,
        device: str = "auto",
        progress: Progress = no_progress,
    ) -> tuple[KeptAdapter, ...]:
        """Keep ``keep`` adapters out of the stream ``sources`` (K-Merge, Shenaj et al. 2025, arXiv 2510.13537).

        The first are kept; each later one joins the one that its delta is most similar to, as a running mean. Each that
        is kept is a merge, pushed as ``name-1``, ``name-2``, …, or written to ``1``, ``2``, … in ``folder``; with
        neither, only certified. ``rank`` and ``base`` are as for :meth:`merge`. Raises UsageError, MergeError and what
        pushing and pulling raise.

        >>> (kept,) = registry.k_merge(["./science", "./history"], 1)
        >>> kept.sources, kept.cosines
        (('science', 'history'), (None, 0.0))
        """
        from loreg.verbs.k_merge import k_merge

        return k_merge(
            self.context,
            [source_text(source) for source in sources],
            keep,
            rank=rank,
            base=base,
            name=name,
            folder=folder,
            device=device,
            progress=progress,
        )

    def identify(self, source: Path | str, *, progress: Progress = no_progress) -> Identification:
        """Say what an adapter is, by its content: which version, in what form, or of which versions it was made.

        ``source`` is a folder, a file of weights, a ref (it is then compared with all others), ``hf:ORG/NAME[@REV]``,
        or a hash of 8 hex digits or more: the sha256 of a manifest, of a file (AutoV2 is its beginning), or of the
        tensors alone (AutoV3). Hashes and sketches name candidates, of which the weights are then compared: nothing but
        the nearest relatives is said of a sketch alone. No answer means that nothing like it is known. Raises
        NotFoundError, AdapterFormatError or IntegrityError for what cannot be read.

        >>> pushed = registry.push("./science", "team/science")
        >>> (answer,) = registry.identify("./science").answers
        >>> answer.ref, str(answer.relation), answer.cosine
        ('team/science:v1', 'same', 1.0)
        """
        from loreg.verbs.identify import find_hash, identify, identify_hash

        text = source_text(source)
        digits = find_hash(text)
        return identify_hash(self.context, digits) if digits else identify(self.context, text, progress)

    def sketch_missing(self, *, progress: Progress = no_progress) -> SketchReport:
        """Read the weights of all versions that were pushed without a sketch, so that :meth:`identify` knows them too.

        Behind a server a worker does it for an administrator. Raises NotAllowedError for others.

        >>> registry.sketch_missing().sketched
        0
        """
        from loreg.verbs.sketch import sketch_missing

        if self.settings.endpoint:
            return self._do_by_worker(JobKind.SKETCH, {}, SketchReport, progress)
        return sketch_missing(self.context, progress)

    def facts(self, ref: str) -> tuple[VersionFacts, ...]:
        """Return what the registry's probes said of a version, by the probes' names, read from its stored files.

        ``check`` is said of every version at its push: the findings by its header, alone and in every server.

        >>> (facts,) = registry.facts(str(registry.push("./science", "team/science").version.ref))
        >>> facts.probe, sorted(facts.value["findings"])
        ('check', ['SG008'])
        """
        return self._backend.facts(parse_ref(ref))

    def count_findings(self, pattern: str = "*") -> FindingCounts:
        """Count by code and namespace the versions with each finding, of the adapters that match ``pattern``.

        Beside them stands how many versions were checked, and how many of those by other rules than the registry has
        by now. Yanked versions are not counted.

        >>> registry.count_findings("team/*").findings
        ()
        """
        return self._backend.count_findings(parse_adapter_pattern(pattern))

    def map(
        self,
        probe: str,
        selection: str | Sequence[str] | Query = "*",
        *,
        profile: str = "",
        rank: int = 0,
        name: str = "",
        again: bool = False,
        processes: int | None = None,
        on: str = "",
        progress: Progress = no_progress,
    ) -> MapReport:
        """Run a probe over all versions that are selected, in as many ``processes`` as there are processors.

        A selection is selectors as in :meth:`sync`, of which one without an alias or a number, ``team/*``, means every
        version; or a query, of what a search finds. It is frozen when the run begins.

        ``on`` ``"ray"`` these are tasks on a Ray that is started on this machine, on ``"ray://HOST:6379"`` on that
        cluster, where this machine is a node: the nodes have the same loreg, and reach the store by themselves.

        A probe is ``check``, ``sketch``, ``spectra``, or one that another package brings (see ``loreg.probes.probe``).
        ``export`` makes of each the files for the server of ``profile``, which :meth:`pull` then finds. ``rerank``
        makes of each what :meth:`rerank` makes at ``rank``: a version of the adapter that ``name`` says, such as
        ``{namespace}/{name}-r8``, with the tasks and labels of its source, and left out itself. What a probe says is
        recorded for :meth:`facts`. Those of which it said something are left out, unless ``again``. Whatever is killed
        meanwhile, the next call of the same goes on; one runs at a time, else UnderWayError. Behind a server a worker
        does it for an administrator, where that worker's options say. A program that calls it must do so below
        ``if __name__ == "__main__":``.

        >>> pushed = registry.push("./science", "team/science")
        >>> registry.map("check").run.versions  # the push checked it
        0
        >>> report = registry.map("spectra", "team/*", processes=1)
        >>> report.recorded, report.failed_count, registry.facts("team/science")[1].probe
        (1, 0, 'spectra')
        """
        from loreg.verbs.map import map_probe, parse_map_selection

        selected = parse_map_selection(selection)
        if self.settings.endpoint:
            if processes is not None or on:
                raise UsageError(
                    f"a worker of {self.settings.endpoint} does it, as its own options say",
                    hint="leave --processes and --on out; loreg worker --help",
                )
            request = {
                "probe": probe,
                "profile": profile,
                "rank": rank,
                "name": name,
                **selected.to_document(),
                "again": again,
            }
            return self._do_by_worker(JobKind.MAP, request, MapReport, progress)
        return map_probe(
            self.context,
            self.settings,
            probe,
            selected,
            options=MapOptions(profile, rank, name),
            again=again,
            processes=processes,
            on=on,
            progress=progress,
        )

    def near_duplicates(self, pattern: str = "*") -> tuple[NearDuplicates, ...]:
        """Return groups of versions whose deltas are nearly the same, of the adapters that match ``pattern``.

        Their cosine, or that of a chain between them, is 0.99 or more by their sketches. Yanked versions, and those
        without a sketch, are left out. Raises UsageError if more than 20,000 match.

        >>> pushed = [registry.push("./science", name) for name in ("team/science", "team/copy")]
        >>> [group.refs for group in registry.near_duplicates("team/*")]
        [('team/science:v1', 'team/copy:v1')]
        """
        return self._backend.near_duplicates(parse_adapter_pattern(pattern))

    def reproduce(
        self,
        ref: str,
        folder: Path | str | None = None,
        *,
        base: Path | str | None = None,
        calibration: Path | str | None = None,
        device: str = "auto",
        progress: Progress = no_progress,
    ) -> ReproduceResult:
        """Merge again what ``ref`` was merged from, by digest, and compare; kept in ``folder`` if it is given.

        Raises NotFoundError if a source is no longer in the registry, UsageError if the version is not a merge, and
        IntegrityError if the deltas differ by more than the dtype explains.

        >>> pushed = [registry.push(f"./{name}", name) for name in ("science", "history")]
        >>> merged = registry.merge(["science", "history"], MergeOptions([0.5, 0.5]), name="both")
        >>> registry.reproduce("both").identical
        True
        """
        from loreg.verbs.reproduce import reproduce

        return reproduce(
            self.context, ref, folder, base=base, calibration=calibration, device=device, progress=progress
        )

    def compare(
        self,
        sources: Sequence[Path | str],
        *,
        initial: Sequence[Path | str] = (),
        base: Path | str | None = None,
        device: str = "auto",
        plot: Path | str | None = None,
        progress: Progress = no_progress,
    ) -> AdapterComparison:
        """Compare every pair of the refs or folders ``sources``; draw heat maps to the file ``plot`` if it is given.

        More than four are put into an order in which alike ones are neighbours.
        ``initial`` and ``base`` are what PiSSA-like and DoRA adapters need, as for :meth:`merge`. Raises UsageError
        for fewer than two, CheckFailedError for adapters of unrelated bases, MergeError for those without a common
        module.

        >>> (pair,) = registry.compare(["./science", "./history"])
        >>> pair.cosine, pair.left_overlap, pair.norm_ratio
        (0.0, 0.0, 1.0)
        """
        from loreg.verbs.compare import compare

        return compare(
            self.context,
            [source_text(source) for source in sources],
            initial=[source_text(adapter) for adapter in initial],
            base=base,
            device=device,
            plot=plot,
            progress=progress,
        )

    def sweep(
        self,
        sources: Sequence[Path | str],
        evaluate: str | Callable[[Path], object] | None = None,
        data: Sequence[Path | str] = (),
        options: SweepOptions = SweepOptions(),
        *,
        base: Path | str | None = None,
        calibration: Path | str | None = None,
        name: str | None = None,
        dry_run: bool = False,
        on: str = "",
        device: str = "auto",
        plot: Path | str | None = None,
        progress: Progress = no_progress,
    ) -> SweepResult:
        """Find the method and the weights to merge the refs or folders ``sources`` by, in few evaluations.

        Either ``data`` names texts by task (JSON Lines with ``task`` and ``text``, or ``TASK=FILE``) and ``base`` the
        folder of a causal language model that evaluates them in place. Or ``evaluate`` says how good a merged adapter
        is: a function of its folder, or ``module:function``, a shell command with ``{dir}``, ``lm-eval:TASKS``; each
        gives a number, or numbers by task. Or nothing is evaluated, and ``calibration``, a file of cross moments as
        :func:`loreg.collect_calibration` makes it, ranks the recipes by their output error; beside ``evaluate`` it is
        what ``regmean`` needs. Trials become versions of ``name``, by default ``sweep-ID``, none with ``dry_run``. The
        same call goes on where it was ended. ``on`` ``"ray"`` or ``"ray://HOST:6379"`` the merged adapters are sent to
        the machines of a cluster, as for :meth:`map`, and evaluated there; a function with its code. Raises UsageError,
        EvaluationError if no trial could be evaluated, and what merging and pushing raise.

        >>> def score(folder):
        ...     return {"qa": 0.5}
        >>> result = registry.sweep(["./science", "./history"], score, options=SweepOptions(budget=4), dry_run=True)
        >>> len(result.trials), result.tasks, result.higher_is_better
        (4, ('qa',), True)
        """
        from loreg.verbs.sweep import sweep

        return sweep(
            self.context,
            [source_text(source) for source in sources],
            evaluate,
            [os.fspath(source) for source in data],
            msgspec.structs.replace(options, extras=_optional_source(options.extras)),
            base=os.fspath(base) if base is not None else None,
            calibration=os.fspath(calibration) if calibration is not None else None,
            name=name,
            dry_run=dry_run,
            on=on,
            device=device,
            plot=plot,
            progress=progress,
        )

    def resume_sweep(
        self,
        sweep: str,
        *,
        budget: int | None = None,
        on: str | None = None,
        device: str = "auto",
        plot: Path | str | None = None,
        progress: Progress = no_progress,
    ) -> SweepResult:
        """Go on with the sweep of that ID, as it was asked for; a larger ``budget`` lets it try more.

        Trials are evaluated where they were, or ``on`` another cluster, or ``""`` on this machine.

        What was evaluated before is not evaluated again. Raises NotFoundError if there is none, UsageError if it
        evaluated with a function that only its own process had.
        """
        from loreg.verbs.sweep import resume_sweep

        return resume_sweep(self.context, sweep, budget=budget, on=on, device=device, plot=plot, progress=progress)

    def bake(
        self,
        sources: Sequence[Path | str],
        base: Path | str,
        folder: Path | str,
        options: MergeOptions = MergeOptions(),
        *,
        dtype: str | None = None,
        verify: bool = False,
        start_over: bool = False,
        device: str = "auto",
        on: str = "",
        progress: Progress = no_progress,
    ) -> BakeResult:
        """Write the model at the path ``base`` with the refs or folders ``sources`` added to it, to the new ``folder``.

        By default each delta is added times its weight, in float32, and rounded once to the dtype of the base, or to
        ``dtype`` (float64, float32, float16, bfloat16); DoRA is exact. Another method, a rank or initial adapters
        merge first, as :meth:`merge` does. The same call goes on where an interrupted one stopped, and leaves a
        ``folder`` that holds this very model as it is; ``start_over`` removes what an interrupted call with other
        arguments left. ``verify`` computes a sample of tensors again and compares, also in a ``folder`` that was baked
        before. ``on`` a cluster, as in :meth:`map`, each shard is written by one of its machines, which all have
        ``base`` and ``folder`` at the same path.

        Raises UsageError, ConflictError if ``folder`` holds anything else, CheckFailedError for a base that does not
        fit (``allow_derived`` takes one that is known to come from the right one), MergeError for what cannot be
        baked, IntegrityError for damaged shards; then nothing is left under the name ``folder``.

        >>> baked = registry.bake(["./science"], "./base", "./baked", verify=True)
        >>> baked.changed, baked.copied, baked.verified
        (1, 0, 1)
        """
        from loreg.verbs.bake import bake

        return bake(
            self.context,
            [source_text(source) for source in sources],
            base,
            folder,
            _with_texts(options),
            dtype=dtype,
            verify=verify,
            start_over=start_over,
            device=device,
            on=on,
            progress=progress,
        )

    def extract(
        self,
        base: Path | str,
        tuned: Path | str,
        *,
        rank: int | None = None,
        energy: float | None = None,
        whole: str = "keep",
        name: str | None = None,
        metadata: VersionMetadata = VersionMetadata(),
        folder: Path | str | None = None,
        device: str = "auto",
        progress: Progress = no_progress,
    ) -> ExtractResult:
        """Take an adapter out of the model ``tuned``, which was trained from ``base``; both are paths.

        Every matrix that changed becomes factors of ``rank``, or of the rank that keeps the share ``energy``, from 0 to
        1, of the squared Frobenius norm of its change. ``whole`` says what becomes of norms, biases and matrices of
        another shape: ``keep`` takes them along whole, ``refuse`` raises MergeError. Pushed as the next version of
        ``name`` with its base, or written to the new ``folder``. Raises UsageError, MergeError and what reading models
        and pushing raise; then nothing is written.

        >>> baked = registry.bake(["./science"], "./base", "./tuned")
        >>> extracted = registry.extract("./base", "./tuned", rank=2, name="team/extracted")
        >>> [(module.module, module.rank, round(module.retained, 6)) for module in extracted.modules]
        [('layers.0.q_proj', 2, 1.0)]
        """
        from loreg.verbs.extract import extract

        return extract(
            self.context,
            base,
            tuned,
            rank=rank,
            energy=energy,
            whole=whole,
            device=device,
            name=name,
            metadata=metadata,
            folder=folder,
            progress=progress,
        )

    def check(
        self,
        sources: Sequence[Path | str],
        *,
        base: Path | str | None = None,
        profiles: Sequence[Path | str] = (),
        against: str = "",
        header_only: bool = False,
        progress: Progress = no_progress,
    ) -> tuple[CheckReport, ...]:
        """Report every finding on each of the refs, folders or adapters on the Hub (``hf:NAME[@REV]``) in ``sources``.

        ``base`` is the model that they are to meet, a path (of which headers alone are read) or one that the registry
        knows; ``profiles`` the servers, e.g. ``vllm:max_lora_rank=64`` or a file; the policy in ``[check]`` of
        loreg.toml holds too. ``against`` is an alias (of the same adapter: what it last meant) or a ref: no metric may
        be worse than that version's. With ``header_only``, and on the Hub, headers are read by ranged requests and no
        weights: NaN and zero are not looked for. An adapter that cannot be read is a finding, not an error. Raises
        UsageError for a wrong base or profile.

        >>> (report,) = registry.check(["./science"], base="./base", profiles=["vllm:max_lora_rank=1"])
        >>> [finding.code for finding in report.findings if finding.severity == "error"]  # its rank is 2
        ['VL001']
        """
        from loreg.verbs.check import check

        return check(
            self.context,
            [source_text(source) for source in sources],
            base=_optional_source(base),
            profiles=[source_text(profile) for profile in profiles],
            against=against,
            header_only=header_only,
            progress=progress,
        )

    def upgrade_base(
        self,
        old: Path | str,
        new: Path | str,
        selection: str | Sequence[str] = (),
        *,
        move: bool = False,
        also: Sequence[str] = (),
        probe_set: Path | str | None = None,
        device: str = "auto",
        progress: Progress = no_progress,
    ) -> UpgradeReport:
        """Say what an upgrade of a base means for its adapters, and with ``move`` record them on the new one.

        ``old`` and ``new`` are folders of the models, or names or digests that the registry knows: then digests alone
        are compared, which say what moves exactly and not how much the rest changed. ``selection`` is as in
        :meth:`sync`; by default it is every adapter whose newest version was trained on ``old``. With ``move`` those
        that move exactly or can be copied become versions on the new base, with tasks and labels, where they come
        from, and no metric; ``also`` names others, adapter by adapter. A second call finds them there.

        ``probe_set`` has texts, as JSON Lines with ``task`` and ``text`` or as one plain file, on which the losses
        before and after are measured. The verdicts are kept if the registry knows both bases:
        ``bases.upgrade_verdicts`` has them. Raises UsageError, NotFoundError where no version is of that base, and what
        opening a base raises; what cannot be read or moved is named in the report.

        >>> pushed = registry.push("./science", "team/science", base="./base")
        >>> baked = registry.bake(["./history"], "./base", "./base-2")
        >>> report = registry.upgrade_base("./base", "./base-2", move=True)
        >>> [(a.version.ref, str(a.verdict), a.moved_to) for a in report.adapters]
        [('team/science:v1', 'copy', 'team/science:v2')]
        """
        from loreg.verbs.upgrade_base import upgrade_base

        return upgrade_base(
            self.context,
            source_text(old),
            source_text(new),
            [selection] if isinstance(selection, str) else selection,
            move=move,
            also=also,
            probe_set=None if probe_set is None else os.fspath(probe_set),
            device=device,
            progress=progress,
        )

    # Finding and describing versions

    def search(
        self,
        text: str = "",
        *,
        tasks: Sequence[str] = (),
        base: str = "",
        modules: Sequence[str] = (),
        ranks: Sequence[str] = (),
        metrics: Sequence[str] = (),
        labels: Mapping[str, str] | None = None,
        namespace: str = "",
        author: str = "",
        variant: str = "",
        loads_in: str = "",
        sort: str = "",
        best: str = "",
        all_versions: bool = False,
        limit: int = 50,
        cursor: str | None = None,
    ) -> SearchPage:
        """Return a page of the versions for which every condition holds; of each adapter the newest.

        ``best`` names a metric, ``accuracy@imdb:test``: the page then holds of each adapter the version that is best by
        it, whatever its age, the best first. ``all_versions`` looks at older ones too, and so do ``metrics`` and a
        ``sort`` by a metric. ``ranks`` are comparisons such as ``<=16`` with the largest rank, ``metrics`` such as
        ``accuracy>=0.9@imdb``. ``namespace`` is ``-`` for adapters that have none. ``loads_in`` names a server that
        takes them, as its rules say of what was pushed: ``vllm``. Raises UsageError for a condition that does not
        parse.

        >>> pushed = registry.push("./science", "team/science", metrics=["accuracy=0.93@imdb"])
        >>> page = registry.search(ranks=["<=16"], metrics=["accuracy>=0.9@imdb"], sort="metric:accuracy")
        >>> [str(metric) for version in page.items for metric in version.metrics]
        ['accuracy=0.93@imdb']
        >>> [version.ref for version in registry.search(best="accuracy@imdb").items]
        ['team/science:v1']
        """
        query = parse_conditions(
            text,
            tasks=tasks,
            base=base,
            modules=modules,
            ranks=ranks,
            metrics=metrics,
            labels=labels,
            namespace=namespace,
            author=author,
            variant=variant,
            loads_in=loads_in,
            all_versions=all_versions,
        )
        order = parse_order(sort, best, text)
        query = msgspec.structs.replace(query, sort=order, best=bool(best), limit=limit, cursor=cursor)
        page = self._backend.search(query)
        return page.followed_by(
            Version, lambda cursor: self._backend.search(msgspec.structs.replace(query, cursor=cursor))
        )

    def facets(
        self,
        text: str = "",
        *,
        tasks: Sequence[str] = (),
        base: str = "",
        modules: Sequence[str] = (),
        ranks: Sequence[str] = (),
        metrics: Sequence[str] = (),
        labels: Mapping[str, str] | None = None,
        namespace: str = "",
        author: str = "",
        variant: str = "",
        loads_in: str = "",
        all_versions: bool = False,
    ) -> Facets:
        """Count the versions that :meth:`search` finds by what they have: tasks, base, rank, servers, metrics, ….

        Of more than 2,000 the newest are counted. ``ranges`` says between which numbers each metric lies.

        >>> pushed = registry.push("./science", "team/science", tasks=["qa"], metrics=["accuracy=0.9"])
        >>> facets = registry.facets()
        >>> [(count.kind.value, count.value, count.versions) for count in facets.counts[:1]]
        [('task', 'qa', 1)]
        >>> facets.ranges
        (MetricRange(name='accuracy', low=0.9, high=0.9, higher_is_better=True),)
        """
        return self._backend.facets(
            parse_conditions(
                text,
                tasks=tasks,
                base=base,
                modules=modules,
                ranks=ranks,
                metrics=metrics,
                labels=labels,
                namespace=namespace,
                author=author,
                variant=variant,
                loads_in=loads_in,
                all_versions=all_versions,
            )
        )

    def tasks(self, *, limit: int = 50, cursor: str | None = None) -> Page[TaskSummary]:
        """Return a page of the tasks, those of the most versions first, each with its best number.

        >>> pushed = registry.push("./science", "team/science", tasks=["qa"], metrics=["accuracy=0.9@sciq"])
        >>> (task,) = registry.tasks().items
        >>> task.task, task.versions, str(task.metric.best), task.metric.ref
        ('qa', 1, 'accuracy=0.9@sciq', 'team/science:v1')
        """
        page = self._backend.task_summaries(limit, cursor)
        return page.followed_by(TaskSummary, lambda cursor: self._backend.task_summaries(limit, cursor))

    def metrics(self, *, limit: int = 50, cursor: str | None = None) -> Page[MetricSummary]:
        """Return a page of what is measured on what, the most common first, with the best number of each and its ref.

        >>> pushed = registry.push("./science", "team/science", metrics=["accuracy=0.9@sciq"])
        >>> [(str(metric.best), metric.ref, metric.versions) for metric in registry.metrics().items]
        [('accuracy=0.9@sciq', 'team/science:v1', 1)]
        """
        page = self._backend.metric_summaries(limit, cursor)
        return page.followed_by(MetricSummary, lambda cursor: self._backend.metric_summaries(limit, cursor))

    def adapters(self, *, limit: int = 50, cursor: str | None = None) -> Page[AdapterEntry]:
        """Return a page of all adapters, by name.

        >>> for name in ("team/science", "team/history"):
        ...     pushed = registry.push("./science", name)
        >>> [str(entry.adapter) for entry in registry.adapters(limit=1).all()]  # page after page
        ['team/history', 'team/science']
        """
        page = self._backend.adapters(limit, cursor)
        return page.followed_by(AdapterEntry, lambda cursor: self._backend.adapters(limit, cursor))

    def versions(self, name: str, *, limit: int = 50, cursor: str | None = None) -> Page[Version]:
        """Return a page of the versions of the adapter ``name``, the newest first, yanked ones too.

        >>> pushed = [registry.push(folder, "team/science") for folder in ("./science", "./history")]
        >>> registry.versions("team/science")[0]
        Version('team/science:v2', rank 2)
        """
        adapter = parse_adapter_name(name)
        page = self._backend.versions(adapter, limit, cursor)
        return page.followed_by(Version, lambda cursor: self._backend.versions(adapter, limit, cursor))

    def show(self, ref: str) -> Details:
        """Return all that is known of the version that ``ref`` means. Raises ConflictError for an ambiguous digest.

        >>> pushed = registry.push("./science", "team/science", metrics=["accuracy=0.93@sciq"])
        >>> details = registry.show("team/science")
        >>> details.version, [file.path for file in details.files]
        (Version('team/science:v1', rank 2, accuracy=0.93@sciq), ['adapter_config.json', 'adapter_model.safetensors'])
        """
        return self._backend.show(parse_ref(ref))

    def lineage(self, ref: str) -> tuple[Version, tuple[LineageEdge, ...]]:
        """Return the version that ``ref`` means, and every merge that it descends from, nearest first.

        >>> merged = registry.merge(["./science", "./history"], MergeOptions([0.7, 0.3]), name="both")
        >>> version, edges = registry.lineage("both")
        >>> [(edge.parent.label, edge.parent.weight, edge.depth) for edge in edges]
        [('science', 0.7, 1), ('history', 0.3, 1)]
        """
        return self._backend.lineage(parse_ref(ref))

    def descendants(self, ref: str) -> tuple[Version, tuple[LineageEdge, ...]]:
        """Return the version that ``ref`` means, and the merges that were made of it, nearest first, 1000 at most.

        Only those that the caller may read. Each edge leads from a merge, ``child``, to what it was made of.

        >>> pushed = registry.push("./science", "team/science")
        >>> merged = registry.merge(["team/science", "./history"], MergeOptions([0.7, 0.3]), name="both")
        >>> [(edge.child, edge.parent.weight) for edge in registry.descendants("team/science")[1]]
        [('both:v1', 0.7)]
        """
        return self._backend.descendants(parse_ref(ref))

    def whoami(self) -> Caller:
        """Return who acts, what they may do in which namespace, and the token that says so.

        >>> registry.whoami().permissions == {"*": "admin"}
        True
        """
        return self._backend.whoami()

    def diff(self, a: Path | str, b: Path | str, *, progress: Progress = no_progress) -> AdapterDiff:
        """Compare two refs or folders field by field: metrics, configuration, ranks, the delta of each module, cards.

        Numbers of deltas are left out without torch. Raises what reading the two raises; adapters of different bases
        have no module in common, which is no error.

        >>> difference = registry.diff("./science", "./history")
        >>> difference.configuration, difference.modules[0].cosine
        ((), 0.0)
        """
        from loreg.verbs.diff import diff

        return diff(self.context, source_text(a), source_text(b), progress=progress)

    def tag(self, ref: str, alias: str, *, expected: int | None = None, rollback_if: Sequence[str] = ()) -> Version:
        """Point ``alias`` to the version of ``ref`` from now on, for all who ask: a canary of it ends.

        With ``rollback_if``, as ``accuracy<0.8``, it means again what it meant before, by itself, when a metric is
        recorded of the version that fulfills one of them: until it moves, or is set again without. Raises UsageError
        if there is nothing to go back to, CheckFailedError if it would go back at once.

        With ``expected`` only if it still means the version of that number (0: if there is no such alias yet); raises
        ConflictError if somebody else moved it. Raises NotAllowedError if the version is yanked, CheckFailedError if
        it breaks the policy that guards the alias.

        >>> pushed = registry.push("./science", "team/science")
        >>> registry.tag("team/science:v1", "prod", expected=0).aliases
        ('prod',)
        """
        if expected is not None and expected < 0:
            raise UsageError(f"an alias cannot mean v{expected}", hint="expected is the number of a version, or 0")
        if rollback_if:
            return self._backend.promote(parse_ref(ref), parse_alias(alias), tuple(rollback_if), expected)
        return self._backend.tag(parse_ref(ref), parse_alias(alias), expected)

    def promotions(self, name: str) -> tuple[Promotion, ...]:
        """Return the aliases of the adapter ``name`` that go back by themselves when their version measures badly."""
        return self._backend.promotions(parse_adapter_name(name))

    def begin_canary(self, ref: str, alias: str, share: float | str, *, rollback_if: Sequence[str] = ()) -> AliasShares:
        """Let the version of ``ref`` have a ``share`` of ``alias``, which means another version: ``"10%"`` or 0.1.

        Routers ask for it by :meth:`route`; whoever asks for the alias itself gets the other version. It ends when a
        metric is recorded of it that fulfills one of ``rollback_if``, as ``accuracy<0.8``, by :meth:`end_canary`, and
        when the alias moves: :meth:`tag` promotes it. Raises what :meth:`tag` raises, and CheckFailedError if it
        would end at once.

        >>> pushed = registry.push("./science", "team/news", aliases=["prod"]), registry.push("./history", "team/news")
        >>> shares = registry.begin_canary("team/news:v2", "prod", "10%", rollback_if=["accuracy<0.8"])
        >>> shares.main.number, shares.canary.number, shares.share
        (1, 2, 0.1)
        >>> measured = registry.add_metrics("team/news:v2", ["accuracy=0.7"])
        >>> registry.shares("team/news:prod").canary is None
        True
        """
        number = parse_share(share) if isinstance(share, str) else share
        return self._backend.begin_canary(parse_ref(ref), parse_alias(alias), number, tuple(rollback_if))

    def end_canary(self, name: str, alias: str) -> AliasShares:
        """Let ``alias`` mean its version for all who ask again. Raises UsageError if it has no canary."""
        return self._backend.end_canary(parse_adapter_name(name), parse_alias(alias))

    def canaries(self, name: str) -> tuple[Canary, ...]:
        """Return the canaries of the adapter ``name``, by alias."""
        return self._backend.canaries(parse_adapter_name(name))

    def shares(self, ref: str) -> AliasShares:
        """Return what an alias, as ``team/news:prod``, means to a router, which may keep it and pick for each key.

        Raises UsageError for a ref without an alias, NotFoundError if it means nothing.
        """
        parsed = parse_ref(ref)
        if parsed.alias is None or parsed.digest is not None:
            raise UsageError(f"{ref!r} names no alias: only an alias has shares", hint="team/news:prod")
        return self._backend.alias_shares(parsed.adapter, parsed.alias)

    def route(self, ref: str, key: str) -> Version:
        """Return the version of an alias for ``key``, a user for instance, who stays with it while the canary lasts.

        Raises what :meth:`shares` raises.

        >>> pushed = registry.push("./science", "team/news", aliases=["prod"])
        >>> registry.route("team/news:prod", "user-42").number
        1
        """
        return self.shares(ref).pick(key)

    def untag(self, name: str, alias: str) -> None:
        """Remove an alias of the adapter ``name``; its history stays.

        >>> pushed = registry.push("./science", "team/science", aliases=["prod"])
        >>> registry.untag("team/science", "prod")
        >>> registry.show("team/science").version.aliases
        ()
        """
        self._backend.untag(parse_adapter_name(name), parse_alias(alias))

    def yank(self, ref: str, *, reason: str = "") -> Version:
        """Hide a version from search, aliases and refs without a version; an exact ref still pulls it.

        >>> pushed = [registry.push(folder, "team/science") for folder in ("./science", "./history")]
        >>> registry.yank("team/science:v2", reason="trained on the test set").yanked
        True
        >>> registry.show("team/science").version.ref
        'team/science:v1'
        """
        return self._backend.set_yanked(parse_ref(ref), True, reason)

    def unyank(self, ref: str) -> Version:
        """Show a yanked version again.

        >>> pushed = registry.push("./science", "team/science")
        >>> yanked = registry.yank("team/science:v1")
        >>> registry.unyank("team/science:v1").yanked
        False
        """
        return self._backend.set_yanked(parse_ref(ref), False, "")

    def delete(self, ref: str, reason: str, *, dry_run: bool = False) -> Deletion:
        """Delete a version for good, because of ``reason``; with ``dry_run`` only say what that would remove.

        Its files, manifest and exports leave the store, but for what other versions share. Its number, digest and
        weights are never recorded again; its events stay, without content. Repeated, it finishes what was interrupted.
        Raises NotAllowedError for all but administrators of everything.

        >>> pushed = registry.push("./science", "team/science")
        >>> registry.delete("team/science:v1", "asked for by its author").removed  # two files and the manifest
        3
        >>> registry.push("./science", "team/again")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        loreg.errors.NotAllowedError: this content was deleted from the registry: it was team/science:v1, on ...
        """
        if dry_run:
            return self._backend.preview_deletion(parse_ref(ref))
        return self._backend.delete(parse_ref(ref), reason)

    def add_metrics(self, ref: str, metrics: Sequence[str | Metric]) -> Version:
        """Record measured numbers of a version; one measured on the same data before is replaced.

        Numbers have the unit that their name says; which direction is better follows from it, is declared
        (:meth:`declare_metric`) or is told by a :class:`~loreg.entities.Metric`. Raises UsageError for one that does
        not parse or is not finite, ConflictError for one of another direction than declared.

        >>> pushed = registry.push("./science", "team/science")
        >>> measured = registry.add_metrics("team/science", ["accuracy=0.93@sciq", "eval_loss=0.2@sciq"])
        >>> [(metric.name, metric.value, metric.higher_is_better) for metric in measured.metrics]
        [('accuracy', 0.93, True), ('eval_loss', 0.2, False)]
        """
        return self._backend.add_metrics(parse_ref(ref), parse_metrics(self._backend, metrics))

    def find_metric_slips(self, metrics: Sequence[str | Metric]) -> dict[str, str]:
        """Return the names of metrics that look like a slip of one in use or of a usual one, with that one.

        >>> registry.find_metric_slips(["acuracy=0.9@imdb", "f1=0.8"])
        {'acuracy': 'accuracy'}
        """
        return find_slips(self._backend, metrics)

    def declare_metric(self, name: str, *, lower_is_better: bool = False, unit: str = "") -> MetricDeclared:
        """Declare which direction of a metric is better, and its unit, for everyone; for administrators.

        Numbers that were recorded with the other direction are turned, and later ones are refused by name.

        >>> registry.declare_metric("carbon", lower_is_better=True, unit="kg").turned
        0
        >>> pushed = registry.push("./science", "team/science", metrics=["carbon=3.2"])
        >>> pushed.version.metrics[0].higher_is_better
        False
        """
        return self._backend.declare_metric(name, not lower_is_better, unit)

    # The registry itself

    def events(
        self,
        *,
        name: str = "",
        namespace: str = "",
        author: str = "",
        actions: Sequence[str] = (),
        since: str = "",
        until: str = "",
        pulls: bool = True,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page[Event]:
        """Return a page of events, the newest first: who did what, and when; with ``name`` to that adapter alone.

        ``namespace`` is ``-`` for adapters that have none. ``since`` and ``until`` are dates, ``2026-11-25``, of which
        the latter is within, times, ``2026-11-25T18:00+01:00``, or spans before now, ``7d``. Without ``pulls`` they are
        those that change something. Raises UsageError for an action or a time that is none.

        >>> pushed = registry.push("./science", "team/science", aliases=["prod"])
        >>> [(event.action, event.ref) for event in registry.events(name="team/science")]
        [('tag', 'team/science:v1'), ('push', 'team/science:v1')]
        >>> [event.action for event in registry.events(actions=["push", "yank"], since="1h")]
        ['push']
        """
        wanted = parse_event_filter(
            adapter=name, namespace=namespace, author=author, actions=actions, since=since, until=until, pulls=pulls
        )
        page = self._backend.events(limit, cursor, wanted)
        return page.followed_by(Event, lambda cursor: self._backend.events(limit, cursor, wanted))

    def deployments(self, pattern: str = "*", *, limit: int = 50, cursor: str | None = None) -> Page[Deployment]:
        """Return a page of which folders and servers have which versions of the adapters that match, as they tell.

        Each says since when, when it was last heard of, and how what it has differs from what its alias means now.

        >>> pushed = registry.push("./science", "team/science", aliases=["prod"])
        >>> registry.report_deployment("vllm-1", [("team/science:prod", "team/science:v1", "prod")])
        >>> [(place.server, place.name, place.ref, place.drift) for place in registry.deployments("team/*")]
        [('vllm-1', 'team/science:prod', 'team/science:v1', '')]
        """
        adapters = parse_adapter_pattern(pattern)
        page = self._backend.deployments(adapters, limit, cursor)
        return page.followed_by(Deployment, lambda cursor: self._backend.deployments(adapters, limit, cursor))

    def report_deployment(
        self,
        server: str,
        versions: Sequence[tuple[str, str, str]] | None,
        *,
        replica: str = "",
        kind: str = "server",
    ) -> None:
        """Tell what a server has now: for each version its name there, its ref, and the alias that it follows, if any.

        What is not named it has not any more. None says that it has what it told last: tell that every five minutes,
        for a server that is silent for fifteen counts as gone. Folders that :meth:`follow` writes tell it themselves.
        Raises NotFoundError for a version that is not there.
        """
        deployed = tuple(DeployedVersion(*version) for version in versions) if versions is not None else None
        self._backend.report_deployment(DeploymentReport(server, replica or "1", kind, deployed))

    def follow_events(
        self,
        patterns: Sequence[str] = (),
        *,
        after: str = "",
        on_outage: Callable[[LoregError, float], None] | None = None,
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> Iterator[FollowedEvent]:
        """Yield the events of the adapters that match, or of all, as they are committed, until ``is_wanted`` says no.

        Those from now on, or after the position ``after`` of an earlier one. It goes on through outages, of which
        ``on_outage`` gets the error and the seconds until it asks again. Raises UnavailableError if the registry does
        not answer at the beginning.

        >>> seen = registry.follow_events(["team/*"], after="0")
        >>> pushed = registry.push("./science", "team/science", aliases=["prod"])
        >>> [(followed.event.action, followed.event.ref) for followed in (next(seen), next(seen))]
        [('push', 'team/science:v1'), ('tag', 'team/science:v1')]
        """
        from loreg.live.follow_events import follow_events

        parsed = tuple(map(parse_adapter_pattern, patterns))
        return follow_events(
            self._backend, parsed, after, on_outage=on_outage or (lambda error, pause: None), is_wanted=is_wanted
        )

    def doctor(self) -> tuple[DoctorCheck, ...]:
        """Look at settings, database, store and weights; what is wrong is in the result, and raises nothing.

        >>> [check.name for check in registry.doctor() if not check.ok]
        []
        """
        from loreg.verbs.doctor import doctor

        return doctor(self.context, self.settings)

    def verify(
        self,
        refs: Sequence[str] = (),
        *,
        read_data: bool | str = False,
        since: datetime | str | None = None,
        trust_checksums: bool = True,
        progress: Progress = no_progress,
    ) -> VerifyReport:
        """Hold every reference of the catalog against the store: what is missing, damaged or of another size.

        By default existence, size and the store's own checksum, without reading; ``read_data`` hashes what that
        checksum does not prove: True for all, ``"5%"`` for the next share of it (where it ended is remembered below
        the home folder), ``"3/20"`` for the third of twenty parts. Without ``trust_checksums`` that is read, too. With
        ``refs`` only these versions are looked at, with ``since`` only what came since then; else also what the store
        has that nothing refers to. Behind a server a worker does it for an administrator, and the report has the first
        hundred of what it counts.

        >>> pushed = registry.push("./science", "team/science")
        >>> report = registry.verify(read_data=True)
        >>> report.ok, report.references, report.read, report.orphan_count
        (True, 3, 3, 0)
        """
        from loreg.verbs.verify import record_verification, verify

        selection = self._select_references(refs, read_data, since, trust_checksums)
        if self.settings.endpoint:
            request = _selection_request(refs, read_data, since, trust_checksums)
            return self._do_by_worker(JobKind.VERIFY, request, VerifyReport, progress)
        report = verify(self.context, selection, progress)
        record_verification(self.context, selection, report)
        return report

    def repair(
        self,
        sources: Sequence[Path | str] = (),
        refs: Sequence[str] = (),
        *,
        read_data: bool | str = False,
        since: datetime | str | None = None,
        trust_checksums: bool = True,
        dry_run: bool = False,
        token_env: str = "",
        progress: Progress = no_progress,
    ) -> RepairReport:
        """Bring back what :meth:`verify` with the same arguments finds broken, from any of ``sources`` that has it.

        A source is a folder with adapters, a store or a registry in it, ``s3://bucket/prefix``, or a server's URL.
        Nothing is believed without its hash. Manifests need no source: the catalog has what they say. With ``dry_run``
        nothing is stored. Behind a server a worker does it for an administrator, from sources that its operator named;
        raises NotAllowedError for others. ``token_env`` names the variable of the environment with the token of a
        server that is a source, if not ``loreg login`` or LOREG_TOKEN beside LOREG_ENDPOINT has it.

        >>> pushed = registry.push("./science", "team/science")
        >>> registry.repair(["./science"]).ok  # nothing was broken
        True
        """
        from loreg.verbs.repair import open_source, repair

        selection = self._select_references(refs, read_data, since, trust_checksums)
        if self.settings.endpoint:
            request = _selection_request(refs, read_data, since, trust_checksums)
            request |= {"sources": [str(source) for source in sources], "dry_run": dry_run}
            return self._do_by_worker(JobKind.REPAIR, request, RepairReport, progress)
        opened = [open_source(str(source), self.settings, token_env) for source in sources]
        return repair(self.context, opened, selection, dry_run=dry_run, progress=progress)

    def gc(
        self,
        *,
        grace: timedelta | str = "24h",
        caches: bool = False,
        dry_run: bool = False,
        progress: Progress = no_progress,
    ) -> GcReport:
        """Remove from the store what nothing refers to, a ``grace`` after an earlier call found it so.

        Also what interrupted writers left in the store and on this machine, expired uploads, and the exports and copies
        for servers of yanked versions; with ``caches`` all exports and copies older than ``grace``, which are made
        again when they are asked for.

        Others may push meanwhile: a push that finds garbage in the store keeps it. ``grace`` is a time, or text such as
        ``"90m"``, ``"24h"`` or ``"7d"``, and longer than the longest push, which is refused otherwise and sends
        everything again. With ``dry_run`` nothing changes. Behind a server a worker does it for an administrator.
        Raises ConflictError for a store that is another registry's.

        >>> registry.gc(grace="0h").removed
        0
        """
        from loreg.verbs.gc import gc

        span = parse_span(grace) if isinstance(grace, str) else grace
        if self.settings.endpoint:
            request = {"grace": format_span(span), "caches": caches, "dry_run": dry_run}
            return self._do_by_worker(JobKind.GC, request, GcReport, progress)
        return gc(self.context, grace=span, caches=caches, dry_run=dry_run, progress=progress)

    def prune(self, pattern: str = "*", *, dry_run: bool = False, progress: Progress = no_progress) -> PruneReport:
        """Let versions go that the table ``[retention]`` of the settings does not keep; with ``dry_run`` say which.

        Of the adapters that match ``pattern``: ``"team/*"``. Never those that an alias means, or a guarded one last
        meant, the newest, those that an open job needs, and what something kept descends from. The next :meth:`gc`
        finds what they leave. The content may be pushed again. Behind a server a worker does it for an administrator,
        by the ``[retention]`` of that server, and the report has the first hundred of what it counts. Raises UsageError
        if there is no ``[retention]``.

        >>> registry.prune("team/*", dry_run=True)  # there is no such table
        Traceback (most recent call last):
        ...
        loreg.errors.UsageError: ...
        """
        from loreg.verbs.prune import prune
        from loreg.workspace.retention import read_retention

        if self.settings.endpoint:
            request = {"pattern": str(parse_adapter_pattern(pattern)), "dry_run": dry_run}
            return self._do_by_worker(JobKind.PRUNE, request, PruneReport, progress)
        retention = read_retention(self.settings.retention, self.settings.origin["retention"])
        return prune(self.context, retention, parse_adapter_pattern(pattern), dry_run=dry_run, progress=progress)

    def usage(self, pattern: str = "*", *, by: str = "namespace", limit: int = 50, cursor: str | None = None) -> Usage:
        """Return a page of how much is stored ``by`` namespace or adapter, of the adapters that match ``pattern``.

        ``own`` bytes would be free if it went, ``shared`` ones others have too. Totals come with the first page. Raises
        NotAllowedError for all but administrators.

        >>> pushed = [registry.push("./science", name) for name in ("team/science", "other/science")]
        >>> [(row.name, row.versions, row.own) for row in registry.usage().items]  # both have the same blobs
        [('other', 1, 0), ('team', 1, 0)]
        """
        if by not in set(UsageBy):
            raise UsageError(f"{by!r} is nothing to count by", hint=f"--by {' | '.join(UsageBy)}")
        return self._backend.usage(UsageBy(by), parse_adapter_pattern(pattern), limit, cursor)

    def backup(self, target: Path | str, *, verify: bool = False, progress: Progress = no_progress) -> BackupReport:
        """Add a snapshot of this registry to the backup in the folder or ``s3://bucket/prefix`` ``target``.

        Consistent while others push: the catalog as it is at one moment, and every blob that it refers to; those that
        the backup has already are not copied again. ``verify`` hashes them, and mends what is damaged. A killed call
        leaves no snapshot, and the next goes on. Behind a server a worker does it for an administrator, to a place that
        its operator named; raises NotAllowedError for others. Raises ConflictError for a place that is no backup of
        this registry.

        >>> pushed = registry.push("./science", "team/science")
        >>> report = registry.backup("./backup")
        >>> report.ok, report.snapshot.blobs, report.new, registry.backup("./backup").new
        (True, 3, 3, 0)
        """
        from loreg.verbs.backup import backup

        if self.settings.endpoint:
            request = {"target": str(target), "verify": verify}
            return self._do_by_worker(JobKind.BACKUP, request, BackupReport, progress)
        return backup(self.context, self._open_backup(target), verify=verify, progress=progress)

    def list_backup(self, target: Path | str) -> tuple[Snapshot, ...]:
        """Return the snapshots of a backup, the newest first. Raises NotFoundError if it has none.

        Behind a server a worker looks, as for :meth:`backup`, and names the newest hundred.
        """
        from loreg.verbs.backup import list_backup

        if self.settings.endpoint:
            request = {"target": str(target), "action": "list"}
            return self._do_by_worker(JobKind.BACKUP, request, SnapshotList, no_progress).snapshots
        return list_backup(self._open_backup(target))

    def forget_snapshots(
        self,
        target: Path | str,
        *,
        keep_last: int | None = None,
        keep_newer: timedelta | str | None = None,
        dry_run: bool = False,
        progress: Progress = no_progress,
    ) -> ForgetReport:
        """Forget old snapshots of a backup, and remove the blobs that only they refer to; with ``dry_run`` say which.

        The newest ``keep_last`` stay, and those taken less than ``keep_newer`` ago: one rule is enough to keep a
        snapshot. The newest always stays. No backup of this registry is made meanwhile. A killed call is finished by
        the next. Behind a server a worker does it, as for :meth:`backup`. Raises UsageError without a rule,
        ConflictError for a backup of another registry, IntegrityError, and removes nothing, if it cannot be read what
        the rest refers to.

        >>> names = [registry.backup("./backup").snapshot.name for _ in range(3)]
        >>> report = registry.forget_snapshots("./backup", keep_last=2)
        >>> report.going_count, [snapshot.name for snapshot in registry.list_backup("./backup")] == names[:0:-1]
        (1, True)
        """
        from loreg.verbs.forget import forget

        newer = parse_span(keep_newer) if isinstance(keep_newer, str) else keep_newer
        if self.settings.endpoint:
            request = {"target": str(target), "action": "forget", "keep_last": keep_last, "dry_run": dry_run}
            request |= {"keep_newer": format_span(newer)} if newer is not None else {}
            return self._do_by_worker(JobKind.BACKUP, request, ForgetReport, progress)
        rules = SnapshotRules(keep_last, newer)
        return forget(self.context, self._open_backup(target), rules, dry_run=dry_run, progress=progress)

    def restore(
        self,
        source: Path | str,
        *,
        snapshot: str = "",
        incomplete: bool = False,
        progress: Progress = no_progress,
    ) -> RestoreReport:
        """Fill this registry, which is empty, with a snapshot of the backup in ``source``, and verify it.

        ``snapshot`` is a name or the beginning of one, by default the newest. It may come from another database, and
        from an older loreg. Blobs come first, then the catalog in one transaction: a killed call leaves the registry
        empty, and the next goes on. Raises ConflictError if there is anything in it, IntegrityError if blobs of the
        snapshot are missing or damaged in the backup, unless ``incomplete`` takes the rest, NotAllowedError behind a
        server.

        >>> pushed = registry.push("./science", "team/science", aliases=["prod"])
        >>> saved = registry.backup("./backup")
        >>> with connect(home="./new") as empty:
        ...     restored = empty.restore("./backup")
        ...     restored.ok, restored.new, empty.show("team/science:prod").version.digest == pushed.version.digest
        (True, 3, True)
        """
        from loreg.verbs.restore import restore

        self._refuse_behind_server("restore", "restore", str(source))
        return restore(self.context, self._open_backup(source), snapshot, incomplete=incomplete, progress=progress)

    def move(
        self,
        database_url: str,
        storage_url: Path | str,
        *,
        storage_endpoint: str = "",
        progress: Progress = no_progress,
    ) -> MoveReport:
        """Move this registry to another database and store, both empty; this one can then only be read.

        Ids, times and events are kept. Blobs are copied while others push, then writers are refused, by the name of the
        new place, and the rest follows. A second call finishes what an interrupted one began. Raises ConflictError if
        there is anything in the new place, IntegrityError if this registry is not whole, and NotAllowedError behind a
        server.

        >>> pushed = registry.push("./science", "team/science")
        >>> moved = registry.move("sqlite:///new.db", "./new-store")
        >>> with connect(database_url="sqlite:///new.db", storage_url="./new-store") as new:
        ...     new.search()[0]
        Version('team/science:v1', rank 2)
        """
        from loreg.verbs.move import move

        storage_url = os.fspath(storage_url)
        arguments = ("move", "--to-database", mask_url(database_url), "--to-storage", mask_url(storage_url))
        self._refuse_behind_server("move", *arguments)
        settings = replace(
            self.settings,
            database_url=database_url,
            storage_url=storage_url,
            storage_endpoint=storage_endpoint,
            endpoint="",
        )
        with Registry(settings) as target:
            return move(self.context, target.context, mask_url(database_url), progress=progress)

    def undo_move(self) -> str:
        """Let this registry be written again after a move that failed, or is not wanted; return where it had moved.

        What was written at the new place does not come back. Raises ConflictError if it has not moved.

        >>> moved = registry.move("sqlite:///new.db", "./new-store")
        >>> place = registry.undo_move()
        >>> registry.push("./science", "team/science").created
        True
        """
        from loreg.verbs.move import undo_move

        self._refuse_behind_server("move", "move", "--undo")
        return undo_move(self.context)

    def mirror(
        self,
        patterns: Sequence[str] = ("*",),
        *,
        to: Path | str | None = None,
        source: Path | str | None = None,
        since: Path | str | None = None,
        force: bool = False,
        token_env: str = "",
        progress: Progress = no_progress,
    ) -> MirrorReport:
        """Bring the adapters that match, with all of their history, to the place ``to``, or from the place ``source``.

        A place is a server's URL, the home folder of a registry, or a bundle, a file that ends in ``.loreg``. Patterns
        are those of shells on ``[ns/]name``. Versions keep number, author and time; events, metrics, aliases and bases
        come along. A second call brings what is new. What the target moved itself is left and named, unless ``force``.
        A bundle is written anew, without the blobs that the earlier bundle ``since`` has. ``token_env`` is that of
        :meth:`repair`. Raises NotAllowedError unless an administrator of the target, NotFoundError if nothing matches.

        >>> pushed = registry.push("./science", "team/science", aliases=["prod"])
        >>> registry.mirror(["team/*"], to="./team.loreg").new
        1
        >>> with connect(home="./other") as other:
        ...     report = other.mirror(source="./team.loreg")
        ...     report.new, other.show("team/science:prod").version.number
        (1, 1)
        """
        from loreg.verbs.bundle import write_bundle
        from loreg.verbs.mirror import mirror
        from loreg.workspace.bundle_source import BundleSource
        from loreg.workspace.mirror_source import RegistrySource

        if (to is None) == (source is None):
            raise UsageError("a mirror goes to one place, or comes from one", hint="loreg mirror --help")
        place = str(source if to is None else to)
        is_bundle = place.endswith(".loreg")
        if since is not None and (to is None or not is_bundle):
            raise UsageError("an earlier bundle is for a new bundle", hint="--to NEW.loreg --since EARLIER.loreg")
        if is_bundle and to is not None:
            earlier = None if since is None else BundleSource(Path(since).expanduser())
            path = Path(to).expanduser()
            return write_bundle(RegistrySource(self.context), path, patterns, since=earlier, progress=progress)
        if is_bundle:
            return mirror(
                BundleSource(Path(place).expanduser()), self.context, patterns, force=force, progress=progress
            )
        with _open_place(place, self.settings, token_env, is_new=to is not None) as other:
            origin, target = (self, other) if to is not None else (other, self)
            return mirror(RegistrySource(origin.context), target.context, patterns, force=force, progress=progress)

    def upgrade(self) -> tuple[str | None, str]:
        """Bring the database's schema up to date; return its revisions before and after.

        >>> made = registry.upgrade()
        >>> before, after = registry.upgrade()  # it is up to date
        >>> before == after == made[1]
        True
        """
        return self._connection.upgrade()

    def close(self) -> None:
        """Give every connection back.

        >>> with connect(home="./registry") as registry:  # closes it in the end
        ...     page = registry.search()
        """
        self._connection.close()

    def _open_backup(self, place: Path | str) -> DocumentStore:
        from loreg.workspace.snapshots import open_backup

        return open_backup(str(place), self.settings.storage_endpoint)

    def _select_references(
        self, refs: Sequence[str], read_data: bool | str, since: datetime | str | None, trust_checksums: bool
    ) -> Selection:
        from loreg.verbs.verify import select_references
        from loreg.workspace.read_share import position_of

        return select_references(refs, read_data, since, position_of(self.settings), trust_checksums=trust_checksums)

    def _refuse_behind_server(self, what: str, *arguments: str) -> None:
        """Raise NotAllowedError where a server is asked: the command is for whoever has the database and the store."""
        if self.settings.endpoint:
            raise NotAllowedError(
                f"{self.settings.endpoint} does not {what} its registry for its clients",
                hint=beside_the_store(*arguments),
            )

    def _do_by_worker(self, kind: JobKind, request: Mapping[str, object], report: type[R], progress: Progress) -> R:
        """Let a worker of the server do it, and return its report."""
        from loreg.verbs.upkeep_jobs import do_by_worker

        return do_by_worker(self.jobs, kind, request, report, progress, self._on_job)

    def __enter__(self) -> Registry:
        return self

    def __repr__(self) -> str:
        return f"Registry({self._place!r}, author={self.settings.author!r})"

    def _repr_html_(self) -> str:
        from loreg.entities.display.html import frame, pairs_table

        return frame(pairs_table((("registry", self._place), ("author", self.settings.author))))

    @property
    def _place(self) -> str:
        """What people know it by, without a password: the server, the database, or the folder of one that is in it."""
        settings = self.settings
        is_in_home = settings.database_url == f"sqlite:///{settings.home / 'catalog.db'}"
        return mask_url(settings.endpoint) or (str(settings.home) if is_in_home else mask_url(settings.database_url))

    def __exit__(self, *exception: object) -> None:
        self.close()


def _selection_request(
    refs: Sequence[str], read_data: bool | str, since: datetime | str | None, trust_checksums: bool
) -> dict[str, object]:
    """Return what is to be looked at, as a job's document says it."""
    start = since.isoformat() if isinstance(since, datetime) else since
    return {"refs": list(refs), "read_data": read_data, "since": start, "trust_checksums": trust_checksums}


def _open_place(text: str, settings: Settings, token_env: str, *, is_new: bool) -> Registry:
    """Open the server or the home folder that ``text`` names; with ``is_new`` the folder need not hold a registry yet.

    Raises UsageError for another place, NotFoundError for a folder without a registry.
    """
    from loreg.workspace.server_token import find_token

    if text.startswith(("http://", "https://")):
        token = find_token(text, settings, token_env)
        return Registry(replace(settings, endpoint=text.rstrip("/"), token=token))
    if "://" in text:
        raise UsageError(
            f"{mask_url(text)!r} is no place of a registry: expected a server's URL, a home folder or FILE.loreg",
            hint="a database and a store are named before the command: --database-url and --storage-url",
        )
    home = Path(text).expanduser().absolute()
    if not is_new and not (home / "catalog.db").is_file():
        raise NotFoundError(f"there is no registry in {home}", hint="expected a home folder, with a catalog.db")
    return Registry(
        replace(
            settings,
            home=home,
            database_url=f"sqlite:///{home / 'catalog.db'}",
            storage_url=str(home / "store"),
            storage_endpoint="",
            storage_public_endpoint="",
            endpoint="",
            token="",
        )
    )


class _Connection(msgspec.Struct, frozen=True):
    """A backend and a store, and what only those who opened them can do."""

    backend: Backend
    store: BlobTransfer
    upgrade: Callable[[], tuple[str | None, str]]
    close: Callable[[], None]


def _open_local(settings: Settings) -> _Connection:
    """Open a catalog and a store that this machine reaches itself."""
    from loreg.local.factory import open_local

    local = open_local(settings)
    backend = local.backend(Access.superuser(settings.author))
    return _Connection(backend, local.store, local.catalog.upgrade, local.catalog.close)


def _optional_source(source: Path | str | None) -> str | None:
    return None if source is None else source_text(source)


def _with_texts(options: MergeOptions) -> MergeOptions:
    """Return the options of a merge with every adapter in them as text."""
    initial = [source_text(adapter) for adapter in options.initial]
    return msgspec.structs.replace(options, initial=initial, extras=_optional_source(options.extras))


def _open_server(settings: Settings) -> _Connection:
    """Open a server that is asked; SQLAlchemy and boto3 are not even imported."""
    from loreg.remote.backend import RemoteBackend
    from loreg.remote.http import Server
    from loreg.remote.store import RemoteStore

    server = Server(settings.endpoint, settings.token, settings.author)
    store = RemoteStore(server)

    def upgrade() -> tuple[str | None, str]:
        raise NotAllowedError(f"the schema is that of {server.endpoint}", hint="loreg db upgrade on the server")

    def close() -> None:
        store.close()
        server.close()

    return _Connection(RemoteBackend(server, store), store, upgrade, close)
