"""Settings of the documentation site: ``sphinx-build -W docs build/docs`` (``pip install ".[docs]"``)."""

from __future__ import annotations

import html
import inspect
import posixpath
import re
import shutil
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging

import monai_salm

logger = logging.getLogger(__name__)
ROOT = Path(__file__).parents[1]
TUTORIALS = ROOT / "tutorials"

project = "monai_salm"
language = "en"
author = "The monai_salm contributors"
copyright = "The monai_salm contributors"  # noqa: A001 - Sphinx's name
version = release = monai_salm.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "images/*.py", "**.ipynb_checkpoints"]
# Files of the repository that are a page of another name on the site.
ELSEWHERE = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "benchmarks/RESULTS.md": "benchmarks.md"}

# Markdown. Headings down to the third level can be linked to, as on the forges that show these files.
myst_enable_extensions = ["dollarmath", "deflist", "colon_fence"]
myst_heading_anchors = 3
# Tutorials are shown with the outputs they were saved with; the tests run them.
nb_execution_mode = "off"

# Docstrings.
napoleon_google_docstring = True
napoleon_numpy_docstring = False
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
autodoc_default_options = {"exclude-members": "__init__,__new__"}

html_theme = "furo"
pygments_dark_style = "monokai"
html_title = f"monai_salm {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {"top_of_page_buttons": []}
html_copy_source = False
html_show_sourcelink = False
# Formulas become MathML, which browsers draw themselves: no page needs a script or a font from elsewhere.
html_math_renderer = "mathml"


def _mathml(node: nodes.math | nodes.math_block, block: bool) -> str:
    try:
        return str(tex2mathml(node.astext(), as_block=block))
    except MathError as error:
        logger.warning("formula not understood: %s", error, location=node)
        return f"<code>{html.escape(node.astext())}</code>"


def _inline_math(translator: Any, node: nodes.math) -> None:
    translator.body.append(_mathml(node, block=False))
    raise nodes.SkipNode


def _block_math(translator: Any, node: nodes.math_block) -> None:
    translator.body.append(f'<div class="math">{_mathml(node, block=True)}</div>\n')
    raise nodes.SkipNode


def _take_tutorials_in(app: Sphinx) -> None:
    """Copy the repository's tutorials, since Sphinx reads below its own folder only."""
    place = Path(app.srcdir) / "tutorials"
    shutil.rmtree(place, ignore_errors=True)
    for page in sorted([*TUTORIALS.glob("*.ipynb"), *TUTORIALS.glob("*.md")]):
        place.mkdir(exist_ok=True)
        shutil.copy(page, place)


def _ready(app: Sphinx, docname: str, source: list[str]) -> None:
    """What differs between a page in the repository, as its hosts show it, and on the site."""
    home = "" if docname.startswith("tutorials/") else "docs/"
    if docname == "results":
        readme = (ROOT / "README.md").read_text(encoding="utf-8")
        results = readme.split("## Results\n", 1)[1].split("\n## ", 1)[0]
        source[0] = source[0].replace("RESULTS_OF_THE_README", _site_links(results, "README.md", docname))
        return
    source[0] = _site_links(source[0], f"{home}{docname}", docname)


def _site_links(text: str, file: str, docname: str) -> str:
    """Links between files of the repository as links between pages; what is no page becomes plain text.

    Args:
        text: Markdown, or a notebook.
        file: where it stands in the repository.
        docname: the page that shows it.
    """
    here = posixpath.dirname(f"docs/{docname}")

    def replaced(match: re.Match[str]) -> str:
        words, target, anchor = match["words"], match["target"], match["anchor"] or ""
        if ":" in target or not target:
            return match[0]
        place = posixpath.normpath(posixpath.join(posixpath.dirname(file), target))
        place = f"docs/{ELSEWHERE[place]}" if place in ELSEWHERE else place
        if re.fullmatch(r"tutorials/[^/]+\.(ipynb|md)", place):
            place = f"docs/{place}"
        if place.startswith("docs/"):
            return f"[{words}]({posixpath.relpath(place, here)}{anchor})"
        return words

    return re.sub(r"(?<!!)\[(?P<words>[^\]\[]+)\]\((?P<target>[^()#\s\"\\]*)(?P<anchor>#[^()\s]*)?\)", replaced, text)


def _readable_signature(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    if what == "class" and signature and "*args" in signature:  # MONAI's transforms hide theirs behind __new__
        parameters = list(inspect.signature(obj.__init__).parameters.values())[1:]
        signature = str(inspect.Signature([one.replace(annotation=one.empty) for one in parameters]))
    return signature and signature.replace(repr(8 / 255), "8 / 255"), returns


def _linked_docstring(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Pages that docstrings name by their file, ``docs/design.md``, become links."""

    def linked(match: re.Match[str]) -> str:
        return f":doc:`/{match[1]}`" if (ROOT / f"docs/{match[1]}.md").exists() else match[0]

    lines[:] = [re.sub(r"(?<![`\w/])docs/(\w+)\.md", linked, line) for line in lines]


def setup(app: Sphinx) -> None:
    app.add_html_math_renderer("mathml", inline_renderers=(_inline_math, None), block_renderers=(_block_math, None))
    app.connect("builder-inited", _take_tutorials_in)
    app.connect("source-read", _ready)
    app.connect("autodoc-process-signature", _readable_signature)
    app.connect("autodoc-process-docstring", _linked_docstring)
