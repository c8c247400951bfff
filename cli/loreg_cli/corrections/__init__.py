"""Find the command that a person meant who typed one that failed.

Come here to teach loreg another mistake: a word into one of the tables, or a rule into ``_RULES``. A rule takes the
failed call and returns the words that would have been right. What it returns is offered only if it parses.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence

import click

from loreg_cli.corrections.call import Call
from loreg_cli.corrections.commands import (
    add_missing_option,
    replace_command,
    replace_option,
    say_no_more,
    separate_words,
    show_help,
    take_a_listed_choice,
    take_one_value,
)
from loreg_cli.corrections.places import (
    exchange_arguments,
    log_in_there,
    name_after_the_folder,
    name_the_folder,
    name_the_ref,
    take_another_folder,
    take_the_folder_of_a_file,
    write_as_path,
    write_scheme,
)
from loreg_cli.corrections.refs import mend_alias, mend_name, mend_ref
from loreg_cli.corrections.values import join_weights, mend_numbers, search_by_metric
from loreg_cli.typed_secrets import TypedSecrets

Rule = Callable[[Call], list[str] | None]

#: For calls that are wrong and for things that are not there, in this order: the first that knows what was meant wins.
_RULES: tuple[Rule, ...] = (
    write_scheme,
    replace_command,
    replace_option,
    exchange_arguments,
    name_after_the_folder,
    separate_words,
    join_weights,
    search_by_metric,
    mend_numbers,
    take_one_value,
    take_the_folder_of_a_file,
    write_as_path,
    Call.with_suggestion,
    name_the_folder,
    mend_ref,
    mend_name,
    mend_alias,
    name_the_ref,
    take_a_listed_choice,
    add_missing_option,
    say_no_more,
    show_help,
)
#: For other errors, by their code; what is not here was typed as it should be.
_RULES_BY_CODE: dict[str, tuple[Rule, ...]] = {
    "usage": _RULES,
    "not-found": _RULES,
    "conflict": (take_another_folder,),
    "unauthenticated": (log_in_there,),
    "unavailable": (write_scheme,),
}


def find_correction(root: click.Group, words: Sequence[str], error: BaseException) -> str | None:
    """Return the command that would have been right instead of ``words``, which failed with ``error``; None if unknown.

    No rule sees the secrets among the words: none can repeat one, whatever it makes of them.
    """
    call = Call(root, tuple(TypedSecrets(words).hidden_words), error)
    for rule in _RULES if isinstance(error, click.UsageError) else _RULES_BY_CODE.get(getattr(error, "code", ""), ()):
        corrected = rule(call)
        if corrected is not None and (call.environment or corrected != [*call.words]) and call.parses(corrected):
            return " ".join([*call.environment, shlex.join(["loreg", *corrected])])
    return None
