"""Every code block of the documentation runs, on small generated data and with a short schedule; and the site builds."""

from __future__ import annotations

import ast
import inspect
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import docs_samples
import pytest
import typer

import monai_salm
from monai_salm.cli import app
from monai_salm.methods.surrogates import SurrogateTraining

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = {
    path.relative_to(DOCS).with_suffix("").as_posix(): path.read_text(encoding="utf-8")
    for path in sorted(DOCS.rglob("*.md"))
    if path.parent.name not in ("tutorials", "_build")
}
#: Pages whose blocks take more than a few seconds.
SLOW = {"evaluation", "start", "guides/evaluate", "guides/medmnist"}
#: Blocks in these languages are for reading: listings of folders and of plain text, settings, references.
READ_ONLY = {"", "text", "json", "yaml", "csv", "bibtex"}
#: Commands that no test can run, by how they begin, and why. What they ask of monai-salm is checked all the same.
COMMANDS_NOT_RUN = {
    "pip install": "installs packages from an index; .ci/run runs the README's",
    "torchrun": "several processes, and machines; tests/test_distributed.py runs ranks",
    "sbatch": "needs a cluster; tests/test_publish.py runs shards",
    "chmod": "another program",
    "openssl": "another program; docs_samples.signing_keys makes the same keys",
    "nnUNetv2_": "another program; tests/test_recipes_training.py runs it",
}
#: Blocks that are not run, by page and how they begin, and why.
BLOCKS_NOT_RUN = {
    ("evaluation", "from monai_salm import Protocol"): "on data sets at hand; tests/test_readme.py runs it",
    ("monai", ""): "tests/test_monai_page.py runs them",
    ("recipes", ""): "tests/test_recipes_training.py runs them, with the packages they are for",
    ("epsilon", ""): "tests/test_epsilon_guide.py runs them",
}
#: Packages that are in no extra and that a page's code needs: without them the page is skipped.
NEEDS: dict[str, tuple[str, ...]] = {}
#: What a page takes for granted.
BEFORE = {"evaluation": "monai-salm protect scans scans_public --store scans.db"}
#: The partner is elsewhere, and has the copy and the encrypted store, but not these.
PARTNER = ("monai-salm decrypt", ("scans.db", "scans_back"))


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    text: str

    @property
    def where(self) -> str:
        return f"docs/{self.page}.md:{self.line}"

    @property
    def commands(self) -> list[str]:
        joined = re.sub(r"\\\n\s*", " ", self.text)
        return [line for line in joined.splitlines() if line.strip() and not line.startswith("#")]

    @property
    def reason(self) -> str | None:
        """Why the block is not run."""
        found = (why for (page, begin), why in BLOCKS_NOT_RUN.items() if page == self.page and begin in self.text)
        return next(found, None)


def blocks_of(page: str) -> list[Block]:
    pattern = r"^(?P<fence>```+|:::+)(?P<language>[^\n]*)\n(?P<text>.*?)^(?P=fence)[ \t]*$"
    found = re.finditer(pattern, PAGES[page], flags=re.DOTALL | re.MULTILINE)
    lines = ((match, PAGES[page].count("\n", 0, match.start()) + 1) for match in found)
    return [Block(page, line, match["language"].strip(), match["text"]) for match, line in lines]


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
CODE = [block for block in BLOCKS if block.language in ("python", "console")]
RUN_PAGES = sorted({block.page for block in CODE if block.reason is None})


def not_run(command: str) -> str | None:
    return next((why for begin, why in COMMANDS_NOT_RUN.items() if command.startswith(begin)), None)


def monai_salm_calls(command: str) -> Iterator[list[str]]:
    """Arguments of every call of the program in a command line, also inside the quotes of another program's."""
    for quoted in re.findall(r"'([^']*monai-salm[^']*)'", command):
        yield from monai_salm_calls(quoted)
    words = shlex.split(command, comments=True)
    for place, word in enumerate(words):
        if word in ("monai-salm", "monai_salm") and (place == 0 or words[place - 1] in ("-m", "&&")):
            rest = words[place + 1 :]
            yield rest[: rest.index("&&")] if "&&" in rest else rest


def shortened(arguments: list[str]) -> list[str]:
    """A call with a schedule of seconds: options that come later win."""
    if arguments[0] == "evaluate":
        named = arguments[arguments.index("--countermeasures") + 1] if "--countermeasures" in arguments else "none"
        short = shlex.split(
            "--victims resnet18 --seeds 0 --epochs 1 --width 0.05 --jobs 1 --fractions 1 --controls none --pipelines plain"
        )
        return [*arguments, *short, "--countermeasures", "none" if named in ("cheap", "all") else named]
    if arguments[0] in ("generate", "protect", "plan"):
        return [*arguments, "--width", "0.05"]
    return arguments


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.where)
def test_every_block_has_a_language_with_a_rule(block: Block) -> None:
    if block.language.startswith("{"):  # a directive; code in one would not be found here
        assert not re.match(r"\{(code|sourcecode|code-cell)", block.language), f"{block.where}: use a plain fence"
    else:
        assert block.language in {"python", "console", *READ_ONLY}, f"{block.where}: how is it checked?"


def test_every_exception_is_needed() -> None:
    for page, begin in BLOCKS_NOT_RUN:
        assert any(block.page == page and begin in block.text for block in CODE), f"{page}: no block has {begin!r}"
    commands = [command for block in CODE if block.language == "console" for command in block.commands]
    for begin in COMMANDS_NOT_RUN:
        assert any(command.startswith(begin) for command in commands), f"no page has {begin!r}"


@pytest.mark.parametrize("block", [b for b in CODE if b.language == "console"], ids=lambda block: block.where)
def test_verbs_and_options_exist(block: Block) -> None:
    verbs = typer.main.get_command(app)
    assert hasattr(verbs, "commands")
    for command in block.commands:
        calls = list(monai_salm_calls(command))
        assert calls or not_run(command), f"{block.where}: {command} is neither run nor named in COMMANDS_NOT_RUN"
        for arguments in calls:
            verb = verbs.commands[arguments[0]]  # type: ignore[attr-defined]
            known = {name for parameter in verb.get_params(typer.Context(verb)) for name in parameter.opts}
            for word in arguments[1:]:
                assert not word.startswith("--") or word in known, f"{block.where}: {arguments[0]} has no {word}"


@pytest.mark.parametrize("block", [b for b in CODE if b.language == "python"], ids=lambda block: block.where)
def test_names_and_arguments_exist(block: Block) -> None:
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom) and node.module == "monai_salm":
            for alias in node.names:
                assert alias.name in monai_salm.__all__, f"{block.where}: monai_salm has no {alias.name}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in monai_salm.__all__:
            known = inspect.signature(getattr(monai_salm, node.func.id)).parameters
            if any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
                continue
            for keyword in node.keywords:
                assert keyword.arg is None or keyword.arg in known, f"{block.where}: {node.func.id}({keyword.arg}=)"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to run a page in, and noise that takes no time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(SurrogateTraining, "steps", property(lambda training: min(2, training.method.surrogate_steps)))
    return tmp_path


@pytest.mark.parametrize("page", [pytest.param(p, marks=[pytest.mark.slow] if p in SLOW else []) for p in RUN_PAGES])
def test_page_runs(page: str, place: Path) -> None:
    for package in NEEDS.get(page, ()):
        pytest.importorskip(package)
    blocks = [block for block in CODE if block.page == page and block.reason is None]
    text = "\n".join(block.text for block in blocks)
    for name, build in docs_samples.BUILDERS.items():
        if re.search(rf"(?<![\w/-]){re.escape(name)}(?![\w-])", text):
            build(place / name)
    if "key.pem" in text:
        docs_samples.signing_keys(place)
    recipient = docs_samples.partner_key(place) if "key.txt" in text else ""
    names: dict[str, object] = {"__name__": "page"}
    if page in BEFORE:
        run_command(BEFORE[page], page)
    for block in blocks:
        if block.language == "python":
            code = "\n" * block.line + block.text  # so that an error names the page's own line
            exec(compile(code, str(DOCS / f"{page}.md"), "exec"), names)  # noqa: S102 - the page is ours
            continue
        for command in block.commands:
            if not not_run(command):
                run_command(command.replace("age1...", recipient), block.where)


def run_command(command: str, where: str) -> None:
    if command.startswith(PARTNER[0]):
        for name in PARTNER[1]:
            shutil.rmtree(name) if Path(name).is_dir() else Path(name).unlink()
    (arguments,) = monai_salm_calls(command)
    with pytest.raises(SystemExit) as end:
        app(shortened(arguments))
    assert not end.value.code, f"{where}: {command}"


@pytest.mark.parametrize("page", ["threat_model"])
def test_figures_are_not_invented(page: str) -> None:
    """Every score that the page names stands in the README or among the experiments."""
    known = (ROOT / "README.md").read_text(encoding="utf-8") + PAGES["experiments"]
    prose = re.sub(r"^```.*?^```", "", PAGES[page], flags=re.DOTALL | re.MULTILINE)
    for figure in sorted(set(re.findall(r"(?<![\d.])\d+\.\d+(?: dB)?", prose))):
        assert re.search(rf"(?<![\d.]){re.escape(figure)}(?![\d])", known), f"docs/{page}.md: where is {figure} from?"


@pytest.mark.slow  # the packages of the site are at hand there
@pytest.mark.parametrize(
    ("page", "link", "on_the_site"),
    [
        ("start", "[a](how_it_works.md#b)", "[a](how_it_works.md#b)"),
        ("guides/png", "[a](../layouts.md)", "[a](../layouts.md)"),
        ("experiments", "[a](../benchmarks/RESULTS.md)", "[a](benchmarks.md)"),
        ("guides/png", "[a](../../CHANGELOG.md)", "[a](../changelog.md)"),
        ("methods", "[a](../monai_salm/learning/augmentation.py)", "a"),
        ("start", "[a](../tutorials/1_b.ipynb)", "[a](tutorials/1_b.ipynb)"),
        ("tutorials/1_b", "[a](../docs/start.md#b)", "[a](../start.md#b)"),
        ("tutorials/README", "[a](1_b.ipynb)", "[a](1_b.ipynb)"),
        ("start", "[a](https://monai.io) ![b](images/example.png) [c](#d)", None),
    ],
)
def test_links_between_files_become_links_of_the_site(page: str, link: str, on_the_site: str | None) -> None:
    for package in ("sphinx", "docutils"):
        pytest.importorskip(package)
    site_links = runpy.run_path(str(DOCS / "conf.py"))["_site_links"]
    file = page if page.startswith("tutorials/") else f"docs/{page}"
    assert site_links(link, file, page) == (on_the_site or link)


def test_the_reference_has_every_public_name() -> None:
    """Names in D and Dict mean the same as those in d."""
    pages = "".join(text for page, text in PAGES.items() if page.startswith("api/"))
    for name in monai_salm.__all__:
        if not name.startswith("__") and not name.endswith(("D", "Dict")):
            assert re.search(rf":: monai_salm\.{name}$", pages, flags=re.MULTILINE), f"the API reference lacks {name}"


@pytest.mark.slow
def test_the_site_builds(tmp_path: Path) -> None:
    for package in ("sphinx", "myst_nb", "furo"):
        pytest.importorskip(package)
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-d", str(tmp_path / "trees"), str(DOCS)]
    here = {**os.environ, "PYTHONPATH": str(Path(monai_salm.__file__).parents[1])}
    built = subprocess.run([*command, str(tmp_path / "site")], env=here, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    for page in PAGES:
        html = (tmp_path / "site" / f"{page}.html").read_text(encoding="utf-8")
        # Who reads the documentation is nobody else's business: scripts, styles and pictures come from the site itself.
        assert not re.search(r'<(?:script|img|iframe)[^>]+src="(?:https?:)?//', html), page
        assert not re.search(r'<link[^>]+rel="(?:stylesheet|preload)"[^>]+href="(?:https?:)?//', html), page
    for page in (tmp_path / "site" / "api").rglob("*.html"):
        assert ">args<" not in page.read_text(encoding="utf-8"), f"{page.name}: a hidden signature"
    formulas = (tmp_path / "site" / "how_it_works.html").read_text(encoding="utf-8")
    assert formulas.count('display="block"') >= 6
    for name in monai_salm.__all__:
        if not name.startswith("__") and not name.endswith(("D", "Dict")):
            pages = "".join(path.read_text(encoding="utf-8") for path in (tmp_path / "site" / "api").glob("*.html"))
            assert f'id="monai_salm.{name}"' in pages, f"the API reference lacks {name}"
