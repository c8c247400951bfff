"""A merge names its sources to those who may read them, and to nobody else."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from deployments import HISTORY, SCIENCE
from loreg.entities import MergeOptions, Metric
from loreg.errors import NotFoundError
from loreg.worker import Worker
from pages.conftest import sign_in
from server.conftest import Guarded

#: What the merge in the namespace "team" was made from, of which its reader may see nothing.
SECRET = "vault/unreleased"


@pytest.fixture(params=["guarded", "guarded_folder"])
def merged(request: pytest.FixtureRequest) -> Iterator[Guarded]:
    guarded: Guarded = request.getfixturevalue(request.param)
    guarded.behind.push(HISTORY, SECRET)
    # Weight 0 has the certificate warn that nothing of the source is kept, by its name.
    options = MergeOptions(weights=[1.0, 0.0])
    guarded.behind.merge(["team/science", SECRET], options, name="team/blend")
    yield guarded


API = (
    "/api/v1/adapters/team/blend/versions/v1",
    "/api/v1/adapters/team/blend/versions/v1/lineage",
    "/api/v1/adapters/team/science/versions/v1/descendants",
)
PAGES = ("/team/blend/v1", "/team/blend/v1/lineage", "/team/science/v1/lineage")


@pytest.mark.parametrize("path", [*API, *PAGES, *(f"{path}?format=json" for path in PAGES)])
def test_no_answer_names_a_source_to_whom_may_not_read_it(merged: Guarded, path: str):
    answers = {}
    for role in ("reader", "root"):
        with merged.http(role) as client:
            if not path.startswith("/api/"):
                assert sign_in(client, merged.tokens[role]).status_code == 303
            answers[role] = client.get(path, headers={"Accept": "text/html"})
    assert {answer.status_code for answer in answers.values()} == {200}
    assert SECRET in answers["root"].text or path.endswith("descendants") or "team/science" in path
    assert "team/science" in answers["reader"].text
    assert "vault" not in answers["reader"].text
    assert "unreleased" not in answers["reader"].text


def test_what_is_hidden_keeps_its_weight_and_its_digest(merged: Guarded):
    """The certificate's figures are of the version itself; the digest tells nothing to whom has not the content."""
    shown, whole = (registry.show("team/blend").provenance for registry in (merged.registry("reader"), merged.behind))
    assert shown.sources[0] == whole.sources[0]
    assert shown.sources[1].is_hidden
    assert not whole.sources[1].is_hidden
    assert (shown.sources[1].digest, shown.sources[1].weight) == (whole.sources[1].digest, 0.0)
    assert shown.certificate["total"] == whole.certificate["total"]
    assert [text.partition(" keeps")[0] for text in whole.certificate["warnings"]] == [f"{SECRET}:v1"]
    assert [text.partition(" keeps")[0] for text in shown.certificate["warnings"]] == ["(hidden source)"]


def test_a_source_of_a_public_namespace_is_named_to_everybody(merged: Guarded):
    merged.behind.namespaces.set_public("vault", True)
    sources = merged.registry("reader").show("team/blend").provenance.sources
    assert [source.label for source in sources] == ["team/science:v1", f"{SECRET}:v1"]


def test_a_merge_that_cannot_be_repeated_says_so_without_a_name(merged: Guarded):
    with pytest.raises(NotFoundError, match="team/blend:v1 was merged from a source that is gone, or not yours to see"):
        merged.registry("reader").reproduce("team/blend")


def test_a_folder_is_no_name_in_the_registry(merged: Guarded):
    merged.behind.merge(["team/science", str(HISTORY)], MergeOptions(weights=[0.5, 0.5]), name="team/of-a-folder")
    sources = merged.registry("reader").show("team/of-a-folder").provenance.sources
    assert [source.label for source in sources] == ["team/science:v1", HISTORY.name]


def test_a_job_names_its_sources_to_those_who_may_read_them(merged: Guarded):
    """This one fails, for there is no such version; why is no business of those who may not know of any."""
    sources = ["team/science", f"{SECRET}:v9"]
    job = merged.behind.jobs.submit("merge", sources=sources, initial=[SECRET], name="team/another")
    assert Worker(merged.behind.settings, None, None, "cpu").work(until_idle=True) == 1
    whole, shown = merged.behind.jobs.show(job.id), merged.registry("reader").jobs.show(job.id)
    assert "vault/unreleased" in whole.error["message"]
    assert shown.request["sources"] == [whole.request["sources"][0], "(hidden source)"]
    assert shown.error["code"] == whole.error["code"] == "not-found"
    reader = merged.http("reader")
    for answer in (reader.get(f"/api/v1/jobs/{job.id}"), reader.get("/api/v1/jobs")):
        assert "team/science" in answer.text
        assert "vault" not in answer.text


def test_whoever_publishes_a_name_that_not_all_readers_may_see_is_told(merged: Guarded):
    """The reader of "team" may not read the vault; of its own namespace everybody who reads it may."""
    pushed = merged.behind.merge(["team/science", SECRET], MergeOptions(weights=[0.5, 0.5]), name="team/told").pushed
    assert [note for note in pushed.notes if SECRET in note] == [
        f"loreg_merge.json names {SECRET}:v1, which not all may read who read this version: they can download that file"
    ]
    own = merged.behind.merge(["team/science", SECRET], MergeOptions(weights=[0.5, 0.4]), name="vault/own").pushed
    assert not [note for note in own.notes if SECRET in note]
    measured = merged.behind.push(SCIENCE, "team/plain", metrics=[Metric("f1", 1.0)])
    assert not [note for note in measured.notes if "loreg_merge" in note]


def test_in_a_public_namespace_the_names_of_a_private_one_are_published(merged: Guarded):
    merged.behind.namespaces.set_public("open", True)
    pushed = merged.behind.merge(["team/science", SECRET], MergeOptions(weights=[0.5, 0.5]), name="open/told").pushed
    (note,) = [note for note in pushed.notes if "loreg_merge.json" in note]
    assert note.startswith(f"loreg_merge.json names team/science:v1 and {SECRET}:v1, which not all may read")
    assert "team" not in json.dumps(merged.http("anonymous").get("/api/v1/adapters/open/told/versions/v1").json())
