"""Sphinx builds these pages with ``make docs``: without a network, and with every warning an error."""

import os
import re
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx

import unibrain

sys.path.insert(0, str(Path(__file__).parent))  # for gallery_order
# Nothing of what the examples run may wait for a network.
os.environ |= {"HF_HUB_OFFLINE": "1", "MPLBACKEND": "agg"}

project = "UniBrain"
author = "The UniBrain authors"
copyright = "The UniBrain authors"
version = release = unibrain.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_gallery.gen_gallery",
]
templates_path = ["templates"]
exclude_patterns = ["_build", "templates", "gallery/**/*.ipynb", "gallery/**/*.py", "gallery/*.json", "gallery/*.md5"]
default_role = "py:obj"  # `Name` in a docstring is a link where there is such a name
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
autosummary_generate = True
autodoc_typehints = "none"  # the docstrings say more: shapes, units, what is allowed
autodoc_member_order = "bysource"
autodoc_default_options = {
    "members": True,
    "exclude-members": "set_fit_request, set_predict_request, set_score_request",  # scikit-learn's, on every estimator
}
napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"/plot_",
    "within_subsection_order": "gallery_order.key",
    # Only what shows itself as HTML, and what was printed: what a plot function returns is not worth a line.
    "capture_repr": ("_repr_html_",),
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_signature": False,
    "write_computation_times": False,
    "plot_gallery": "True",
}

html_theme = "furo"
html_title = f"UniBrain {release}"
html_static_path = ["static"]
html_css_files = ["unibrain.css"]
html_copy_source = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#3a4fc4", "color-brand-content": "#3a4fc4"},
    "dark_css_variables": {"color-brand-primary": "#9aa8ff", "color-brand-content": "#9aa8ff"},
}


def link_classes_only(app: Sphinx, document: nodes.document) -> None:
    """Take the links from words of a type that are no class: the n of "shape (n, voxels)" is no `Latents.n`."""
    for node in list(document.findall(pending_xref)):
        if node.get("refspecific") and not node["reftarget"].split(".")[-1][:1].isupper():
            node.replace_self(node.children)


def keep_underscores(app: Sphinx, what: str, name: str, item: object, options: object, lines: list[str]) -> None:
    """Keep the underscore at the end of a fitted attribute's name, which would be read as the mark of a link."""
    lines[:] = [re.sub(r"^(:(?:ivar|vartype) \w+)_:", r"\1\\_:", line) for line in lines]


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the above; Sphinx calls this."""
    app.connect("autodoc-process-docstring", keep_underscores, priority=900)  # after napoleon
    app.connect("doctree-read", link_classes_only)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
