"""How Sphinx builds the docs (`make docs`).

The source directory is the repository, so that links between README, CONTRIBUTING and docs/ hold
here as on a page that shows the repository.
"""

from __future__ import annotations

import sys
from pathlib import Path

PROJECT = Path(__file__).parents[1]
sys.path[:0] = [str(PROJECT), str(PROJECT / "docs")]

import generate  # noqa: E402

from roman_assets.build import build  # noqa: E402

project = "roman-assets"
author = "the authors of roman-assets"
version = release = build().version

extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
root_doc = "docs/index"
include_patterns = [
    "README.md",
    "CONTRIBUTING.md",
    "changes/README.md",
    "data/README.md",
    "docs/**",
]
exclude_patterns = ["docs/reference/generated", "docs/*.py"]

myst_enable_extensions = ["attrs_inline", "colon_fence"]
myst_heading_anchors = 4
numpydoc_show_class_members = False
autodoc_typehints = "none"
default_role = "code"

html_theme = "pydata_sphinx_theme"
html_title = "roman-assets"
html_show_sourcelink = False
html_theme_options = {
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
copyright = "the authors of roman-assets, BSD-3-Clause"  # noqa: A001

generate.write_pages(PROJECT / "docs" / "reference" / "generated")
