"""How Sphinx builds the documentation: `make docs`.

Why Sphinx with furo and MyST: it makes the reference from docstrings and from our own data, checks every internal link
and fails on what it cannot resolve, and all four projects are released regularly. mkdocs-material is in maintenance,
zensical is young.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

import loreg

project = "loreg"
author = "the authors of loreg"
project_copyright = author
version = release = loreg.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx_click",
    "sphinx_copybutton",
    "generated_reference",
    "gallery",
    "public_names",
    "command_help",
]
exclude_patterns = ["_build", "_ext"]
nitpicky = True
smartquotes = False  # quotes in commands are typed as they stand
nitpick_ignore = [
    ("py:class", "loreg.entities.queries.T"),  # a type variable
    ("py:class", "T"),
    ("py:class", "contextlib.AbstractContextManager"),  # which Python documents as a function's decorator alone
]
myst_enable_extensions = ["attrs_inline", "deflist", "fieldlist"]
myst_heading_anchors = 4
myst_links_external_new_tab = False

html_theme = "furo"
html_title = f"loreg {release}"
html_copy_source = html_show_sourcelink = False
html_static_path = ["_static"]
html_css_files = ["loreg.css"]
pygments_style = "friendly"
pygments_dark_style = "monokai"
copybutton_prompt_text = r"\$ |>>> "
copybutton_prompt_is_regexp = True
copybutton_only_copy_prompt_lines = True

add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
maximum_signature_line_length = 110
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"

# Anchors of pages that scripts build are not in their HTML.
linkcheck_anchors_ignore_for_url = [r"https://github\.com/.*"]
linkcheck_timeout = 20
