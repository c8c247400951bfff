"""identify: say what an adapter is by its content. Hashes and sketches name candidates, the weights decide."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loreg.adapters.config import CONFIG_NAME
from loreg.adapters.structure import WEIGHTS_NAME, read_structure
from loreg.entities import (
    Candidate,
    Identification,
    Kinship,
    KinshipKind,
    MergeShare,
    Progress,
    Sketch,
    Version,
    no_progress,
)
from loreg.errors import LoregError, UnavailableError
from loreg.identity import mixture
from loreg.identity.comparison import compare_pair, differing_tensors, gram_matrix, stored_precision
from loreg.identity.factors import FactorFile, open_factors
from loreg.identity.relation import RELATED, relate, retention, tolerance
from loreg.identity.sketch import cosine, decode_vector, digest_of_data, encode_vector, sketch_adapter
from loreg.refs import Ref
from loreg.workspace.context import Context
from loreg.workspace.download import download_to_temporary
from loreg.workspace.subject import Subject, open_subject

_HASH = re.compile(r"(?:sha256:)?([0-9a-fA-F]{8,64})")
_LIMIT = 20  # candidates that are asked for at a time
_COMPARED = 4  # of different content whose weights are compared
_LIKELY = 0.3  # |cosine| of sketches from which a version is a candidate
_EXPLAINED = 0.5  # of ‖Δ‖² that a merge's sources must explain
_STRONG = tuple(KinshipKind)[: tuple(KinshipKind).index(KinshipKind.MERGED)]


def find_hash(text: str) -> str:
    """Return the hex digits of ``text`` in lower case if it is written as a hash, of 8 digits or more; else nothing."""
    match = _HASH.fullmatch(text)
    return match[1].lower() if match else ""


def identify_hash(context: Context, digits: str) -> Identification:
    """Say which versions have a hash that begins with ``digits``: a manifest's, a file's, or that of the tensors."""
    candidates = context.backend.candidates([digits], "", _LIMIT)
    answers = [
        Kinship(candidate.version.ref, KinshipKind.HASH, hashes=candidate.hashes, is_exact=False)
        for candidate in candidates
    ]
    return Identification(digits, digits, "", 0.0, tuple(answers))


def identify(context: Context, text: str, progress: Progress = no_progress) -> Identification:
    """Say what a folder, file, version or adapter on the Hub is. See :meth:`loreg.registry.Registry.identify`."""
    with open_subject(context, text, progress) as subject, contextlib.ExitStack() as stack:
        progress("sketching", 0, 1)
        if subject.structure is None:
            sketch = Sketch(digest_of_data(subject.weights))
        else:
            sketch = sketch_adapter(subject.structure)
        hashes = [subject.sha256, sketch.data, *([subject.manifest] if subject.manifest else [])]
        candidates = _without_itself(subject, context.backend.candidates(hashes, sketch.vector, _LIMIT))
        run = _Identifying(context, subject, sketch, stack, progress)
        return Identification(
            subject.name, subject.sha256, sketch.data, sketch.norm, tuple(run.answers(candidates)), run.describe()
        )


@dataclass
class _Identifying:
    """One adapter that is asked about, and the weights of the candidates that were fetched for it."""

    context: Context
    subject: Subject
    sketch: Sketch
    stack: contextlib.ExitStack
    progress: Progress
    files: dict[str, FactorFile | None] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def answers(self, candidates: Sequence[Candidate]) -> list[Kinship]:
        """Return what the subject is to the candidates, the best first."""
        groups = self._group(candidates)
        if self.subject.structure is None:
            return [self._by_hash(group) for group in groups if group[0].hashes]
        query = self.stack.enter_context(open_factors(self.subject.structure))
        kin: list[Kinship] = []
        for group in groups[:_COMPARED]:
            answer = self._compare(query, group)
            if answer is not None:
                kin.append(answer)
            if answer is not None and answer.relation in _STRONG:
                break
        kin.sort(key=lambda answer: (tuple(KinshipKind).index(answer.relation), -abs(answer.cosine)))
        if not kin or kin[0].relation not in _STRONG:
            merge = self._find_mixture(query, candidates)
            kin = [merge, *kin] if merge is not None else kin
        return kin

    def describe(self) -> tuple[str, ...]:
        """Return what was not compared, in sentences."""
        structure = self.subject.structure
        if structure is None:
            return ("a file without its adapter_config.json is known by its hashes alone",)
        if not self.sketch.vector:
            self.notes.append("its factors cannot be read: it is known by its hashes alone")
        if self.sketch.vector and not self.sketch.norm:
            self.notes.append("all of its deltas are zero: it changes nothing")
        if structure.config.variant == "dora":
            self.notes.append("of DoRA B·A was compared, and the magnitudes beside it")
        if structure.config.changes_the_base:
            self.notes.append("what its training changed in the base from the start is not counted")
        return tuple(self.notes)

    def _group(self, candidates: Sequence[Candidate]) -> list[list[Candidate]]:
        """Return the candidates by content, those with an equal hash first, then the nearest."""
        groups: dict[object, list[Candidate]] = {}
        for candidate in candidates:
            if candidate.hashes or abs(self._cosine(candidate)) >= _LIKELY:
                data = candidate.sketch.data if candidate.sketch else candidate.version.digest
                groups.setdefault((data, candidate.sketch and candidate.sketch.vector), []).append(candidate)

        def fit(candidate: Candidate) -> tuple[bool, int]:
            return candidate.version.digest != self.subject.manifest, -len(candidate.hashes)

        return sorted((sorted(group, key=fit) for group in groups.values()), key=lambda group: fit(group[0]))

    def _cosine(self, candidate: Candidate) -> float:
        if candidate.sketch is None or not candidate.sketch.vector or not self.sketch.vector:
            return 0.0
        return cosine(decode_vector(self.sketch.vector), decode_vector(candidate.sketch.vector))

    def _by_hash(self, group: Sequence[Candidate]) -> Kinship:
        first, *others = group
        also = tuple(candidate.version.ref for candidate in others)
        return Kinship(first.version.ref, KinshipKind.HASH, hashes=first.hashes, also=also, is_exact=False)

    def _compare(self, query: FactorFile, group: Sequence[Candidate]) -> Kinship | None:
        """Return what the subject is to versions of one content, from their weights; None if nothing."""
        first, *others = group
        also = tuple(candidate.version.ref for candidate in others)
        if first.version.digest == self.subject.manifest:
            return Kinship(first.version.ref, KinshipKind.SAME, 1.0, hashes=first.hashes, also=also)
        candidate = self._open(first.version)
        if candidate is None:
            return self._by_hash(group) if first.hashes else None
        sums = compare_pair(query, candidate)
        precisions = stored_precision(query), stored_precision(candidate)
        relation = relate(sums, min(precisions))
        if relation is None:
            return self._by_hash(group) if first.hashes else None
        is_cut = relation is KinshipKind.RERANKED
        return Kinship(
            first.version.ref,
            relation,
            cosine=sums.cosine,
            scale=1.0 if is_cut else sums.scale,
            error=sums.error,
            retention=retention(sums) if is_cut else 1.0,
            is_source=not is_cut or bool(sums.lower_q),
            hashes=first.hashes,
            also=also,
            notes=tuple(self._describe_pair(query, candidate, relation, precisions)),
        )

    def _describe_pair(
        self, query: FactorFile, candidate: FactorFile, relation: KinshipKind, precisions: tuple[int, int]
    ) -> list[str]:
        notes = []
        if relation in _STRONG and precisions[0] != precisions[1]:
            coarse = "it is" if precisions[0] < precisions[1] else "the version is"
            notes.append(f"{coarse} the one with fewer bits: {min(precisions)} of significand, not {max(precisions)}")
        differing = differing_tensors(query, candidate) if relation in _STRONG else ()
        if differing:
            more = f" and {len(differing) - 1} more" if len(differing) > 1 else ""
            notes.append(f"but {differing[0]}{more} beside the factors differ")
        if relation is KinshipKind.NEAR:
            notes.append("the weights do not say which of the two came first")
        return notes

    def _find_mixture(self, query: FactorFile, candidates: Sequence[Candidate]) -> Kinship | None:
        """Return the merge that the subject is, if a weighted sum of versions explains most of it."""
        if not self.sketch.vector or not self.sketch.norm:
            return None
        sources = self._pursue(candidates)
        opened = [(version, file) for version in sources if (file := self._open(version)) is not None]
        if len(opened) < 2:
            return None
        gram = gram_matrix([query, *(file for _, file in opened)])
        needed = mixture.needed_sources(gram)
        weights, error = mixture.solve(gram[[0, *needed]][:, [0, *needed]])
        if len(needed) < 2 or 1 - error**2 < _EXPLAINED:
            return None
        shares = [
            MergeShare(opened[place - 1][0].ref, float(weight)) for place, weight in zip(needed, weights, strict=True)
        ]
        shares.sort(key=lambda share: -abs(share.weight))
        precision = min(stored_precision(file) for file in (query, *(opened[place - 1][1] for place in needed)))
        notes = []
        if error > tolerance(precision):
            notes.append("the rest is what a lower rank, or a method that is no sum, has left out or added")
        total = float((1 - error**2) ** 0.5)
        return Kinship(
            shares[0].ref, KinshipKind.MERGED, cosine=total, error=error, sources=tuple(shares), notes=tuple(notes)
        )

    def _pursue(self, candidates: Sequence[Candidate]) -> list[Version]:
        """Return versions whose sketches together come close to the subject's (orthogonal matching pursuit).

        Pati, Rezaiifar and Krishnaprasad 1993. The sketch of a sum is the sum of sketches: what is left points at the
        sources that are still missing.
        """
        target = decode_vector(self.sketch.vector)
        left = target
        chosen: dict[str, tuple[Version, Any]] = {}
        while len(chosen) < mixture.MAX_SOURCES:
            best: tuple[Version, Any] | None = None
            size = RELATED
            for candidate in candidates:
                if candidate.version.digest in chosen or not (candidate.sketch and candidate.sketch.vector):
                    continue
                vector = decode_vector(candidate.sketch.vector)
                if abs(cosine(left, vector)) > size:
                    best, size = (candidate.version, vector), abs(cosine(left, vector))
            if best is None:
                break
            chosen[best[0].digest] = best
            _, left = mixture.fit(target, [vector for _, vector in chosen.values()])
            if float(left @ left) < 1e-6 * float(target @ target):
                break
            candidates = _without_itself(self.subject, self.context.backend.candidates([], encode_vector(left), _LIMIT))
        return [version for version, _ in chosen.values()]

    def _open(self, version: Version) -> FactorFile | None:
        """Return the weights of a version, fetched once; None, with a note, if they cannot be read."""
        if version.digest not in self.files:
            try:
                self.files[version.digest] = self._fetch(version)
            except UnavailableError:
                raise
            except LoregError as error:
                self.notes.append(f"{version.ref} could not be compared: {error.message}")
                self.files[version.digest] = None
        return self.files[version.digest]

    def _fetch(self, version: Version) -> FactorFile:
        ref = Ref(version.adapter, number=version.number, digest=version.digest)
        files = [file for file in self.context.backend.show(ref).files if file.path in (CONFIG_NAME, WEIGHTS_NAME)]
        folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory(prefix="loreg-identify-")))
        download_to_temporary(self.context, files, folder, self.progress)
        return self.stack.enter_context(open_factors(read_structure(folder)))


def _without_itself(subject: Subject, candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates without the version that is asked about."""
    own = subject.details.version.ref if subject.details is not None else ""
    return [candidate for candidate in candidates if candidate.version.ref != own]
