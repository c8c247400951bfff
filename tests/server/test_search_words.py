"""The words that a shell completes are those of the versions that the caller may read, and no others."""

from __future__ import annotations

from deployments import NEWS, SCIENCE
from loreg.entities import SearchWords
from loreg.registry import Registry
from server.conftest import Guarded


def words_of(registry: Registry) -> SearchWords:
    return registry.context.backend.search_words()


def test_they_are_those_of_all_versions_that_are_shown(registry: Registry):
    assert words_of(registry) == SearchWords()
    registry.push(NEWS, "team/news", tasks=["topics"], metrics=["accuracy=0.9"])
    registry.push(SCIENCE, "other/science", tasks=["qa", "topics"], metrics=["f1=0.5"])
    words = words_of(registry)
    assert (words.tasks, words.metrics) == (("qa", "topics"), ("accuracy", "f1"))
    assert words.modules == ("q_proj", "query", "v_proj", "value")
    assert "HuggingFaceTB/SmolLM2-135M-Instruct" in words.bases
    registry.yank("other/science:v1")
    assert (words_of(registry).tasks, words_of(registry).modules) == (("topics",), ("query", "value"))


def test_facets_count_no_namespace_that_may_not_be_read(guarded_folder: Guarded):
    guarded_folder.behind.push(NEWS, "other/news", tasks=["topics"], metrics=["accuracy=0.9"])
    for role, namespaces in (("stranger", {"other"}), ("reader", {"team"}), ("root", {"other", "team"})):
        facets = guarded_folder.registry(role).facets()
        assert {count.value for count in facets.counts if count.kind == "namespace"} == namespaces
        assert [metric.name for metric in facets.ranges] == ([] if role == "reader" else ["accuracy"])


def test_of_a_namespace_that_may_not_be_read_there_is_none(guarded_folder: Guarded):
    guarded_folder.behind.push(NEWS, "other/news", tasks=["topics"], metrics=["accuracy=0.9"])
    with guarded_folder.registry("stranger") as stranger:
        words = words_of(stranger)
    assert (words.tasks, words.metrics, words.modules) == (("topics",), ("accuracy",), ("query", "value"))
    assert not any("SmolLM2" in base for base in words.bases)
    with guarded_folder.registry("nobody") as nobody:
        assert words_of(nobody) == SearchWords()
