from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loreg.errors import LoregError, UsageError
from loreg.refs import AdapterName, Ref, parse_adapter_name, parse_alias, parse_ref

DIGEST = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "ref"),
    [
        ("a", Ref(AdapterName("", "a"))),
        ("team/a", Ref(AdapterName("team", "a"))),
        ("team/a:latest", Ref(AdapterName("team", "a"))),
        ("team/a:v12", Ref(AdapterName("team", "a"), number=12)),
        ("team/a:prod", Ref(AdapterName("team", "a"), alias="prod")),
        (f"a@sha256:{DIGEST}", Ref(AdapterName("", "a"), digest=DIGEST)),
        ("Org/My.LoRA_v2:v1@sha256:01234567", Ref(AdapterName("Org", "My.LoRA_v2"), number=1, digest="01234567")),
    ],
)
def test_what_a_ref_means(text: str, ref: Ref):
    assert parse_ref(text) == ref


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "a/",
        "/a",
        "a/b/c",
        "..",
        "../a",
        "a/..",
        "a..b",
        ".hidden",
        "-a",
        "a:",
        "a:b/c",
        "a@",
        "a@md5:1",
        "a b",
        "a@sha256:XYZ",
        "a@sha256:0123",
        "a" * 97,
        "a\n",
        "é",
        "a:v0",
        "a:v01",
        "a;b",
        "a%2e",
    ],
)
def test_what_is_no_ref(text: str):
    with pytest.raises(UsageError) as error:
        parse_ref(text)
    assert error.value.hint


@pytest.mark.parametrize("alias", ["latest", "v1", "v0", "v123", "", "a b", "a:b", "..", "a/b"])
def test_what_cannot_be_an_alias(alias: str):
    with pytest.raises(UsageError):
        parse_alias(alias)


@given(st.text(max_size=40))
def test_any_text_is_a_ref_or_a_usage_error(text: str):
    try:
        ref = parse_ref(text)
    except LoregError as error:
        assert error.exit_code == 2
    else:
        assert parse_ref(str(ref)) == ref


@given(st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9_-]{0,20}[A-Za-z0-9])?", fullmatch=True))
def test_every_plain_word_is_a_name(word: str):
    assert str(parse_adapter_name(f"{word}/{word}")) == f"{word}/{word}"
