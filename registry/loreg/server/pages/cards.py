"""Render a model card, which a stranger wrote: Markdown without HTML, then a list of what is allowed.

Nothing of it is loaded, runs, or looks like a part of the page: no image, no style, no class, no link into this server.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

import nh3
from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup, escape

MAX_CARD = 32 * 1024  # characters that are rendered
_TAGS = {
    "a", "blockquote", "br", "code", "del", "div", "em", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p", "pre", "s",
    "strong", "table", "tbody", "td", "th", "thead", "tr", "ul",
}  # fmt: skip
_ATTRIBUTES = {"a": {"href"}, "ol": {"start"}}
_FRONT_MATTER = re.compile(r"\A---\r?\n.*?\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_FIRST_LEVEL = 3  # below the title of the page, and of the section that the card is


@functools.lru_cache(maxsize=256)
def render_card(card: str) -> Markup:
    """Return the card as HTML that may stand in a page; front matter is left out, and what is over 32 KiB."""
    text = _FRONT_MATTER.sub("", card[:MAX_CARD], count=1)
    parser = _parser()
    tokens = parser.parse(text)
    _nest_headings(tokens)
    html = parser.renderer.render(tokens, parser.options, {})
    clean = nh3.clean(
        html,
        tags=_TAGS,
        attributes=_ATTRIBUTES,
        url_schemes={"http", "https", "mailto"},
        url_relative="deny",
        link_rel="noopener noreferrer nofollow",
    )
    return Markup(clean)  # noqa: S704  nh3 has left nothing but the tags and attributes above


@functools.cache
def _parser() -> MarkdownIt:
    """Return CommonMark with tables, without HTML; an image is the text that stands for it."""
    parser = MarkdownIt("js-default", {"html": False, "maxNesting": 20})
    parser.add_render_rule("image", _render_image)
    return parser


def _render_image(self: object, tokens: Sequence[Token], index: int, options: object, env: object) -> str:
    return f"<em>[picture: {escape(tokens[index].content or 'without a name')}]</em>"


def _nest_headings(tokens: Sequence[Token]) -> None:
    """Let the headings begin below those of the page, and none skip a level."""
    level, stack = _FIRST_LEVEL - 1, []
    for token in tokens:
        if token.type == "heading_open":
            level = min(6, max(_FIRST_LEVEL, min(int(token.tag[1]) + _FIRST_LEVEL - 1, level + 1)))
            stack.append(level)
            token.tag = f"h{level}"
        elif token.type == "heading_close":
            token.tag = f"h{stack.pop()}"
