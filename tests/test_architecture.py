"""The package holds to docs/design.md: imports run one way, nothing unpickles or evaluates, modules and functions stay small.

The rules are functions of source text, tested below on planted violations and then applied to the package.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "monai_salm"
#: Lines of a module, lines of a function with its docstring, parameters of a function. In ``cli/`` parameters are options.
MAX_LINES, MAX_FUNCTION_LINES, MAX_PARAMETERS = 320, 60, 8
README_COMMANDS = ('pip install ".[demo]" && monai-salm demo', 'pip install ".[test]" && pytest')

# Wing -> the wings that its modules import, each wing below those that it imports (docs/design.md, section 8). A wing is a folder
# or a module of the package. ``_version`` is for all.
WINGS: dict[str, str] = {
    "_version": "",
    "shared": "",
    "noise": "shared",
    "formats": "shared noise",
    "store": "shared noise",
    "learning": "shared noise",
    "data": "shared noise learning",
    "layouts": "shared noise formats learning",
    "countermeasures": "shared noise learning",
    "jobs": "shared noise learning data",
    "methods": "shared noise learning jobs",
    "generate": "shared noise store learning data jobs methods",
    "transforms": "shared noise store data generate",
    "report": "shared",
    "evaluation": "shared noise store learning data countermeasures methods transforms report",
    "publishing": "shared noise formats store learning data layouts methods generate",
    "demo": "shared store learning layouts jobs methods generate report evaluation publishing",
    "__init__": "shared noise store learning layouts methods transforms report evaluation publishing",
    "cli": "shared noise formats store learning layouts jobs methods generate report evaluation publishing demo",
    "__main__": "cli",
}
HALL = {"__init__.py", "__main__.py", "_version.py", "transforms.py"}

FORBIDDEN_MODULES = {
    "pickle": "it runs code from the file",
    "_pickle": "it runs code from the file",
    "cloudpickle": "it runs code from the file",
    "dill": "it runs code from the file",
    "joblib": "its files are pickles",
    "marshal": "it can crash on hostile input",
    "shelve": "its files hold pickles",
}
FORBIDDEN_NAMES = {
    "torch.load": "it unpickles: use safetensors",
    "torch.save": "it pickles: use safetensors",
    "torch.jit.load": "it loads code: use safetensors",
    "shutil.unpack_archive": "archives are not extracted",
    "builtins.eval": "it runs text as code",
    "builtins.exec": "it runs text as code",
}
FORBIDDEN_BUILTINS = {"eval", "exec", "__import__"}
FORBIDDEN_ATTRIBUTES = {
    "extractall": "archives are not extracted",
    "unpack_archive": "archives are not extracted",
    "download_and_extract": "archives are not extracted",
    "read_pickle": "it unpickles",
}


# ---------------------------------------------------------------------------------------------------------------------
# The rules


def module_name(path: Path, root: Path) -> str:
    """``monai_salm/methods/salm.py`` -> ``monai_salm.methods.salm``; a folder's ``__init__.py`` keeps its name."""
    return ".".join(path.relative_to(root).with_suffix("").parts)


def wing_of(module: str) -> str:
    """The wing of a full module name: ``monai_salm.methods.salm`` -> ``methods``."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def _import_targets(node: ast.AST, module: str) -> list[str]:
    """Full names that an import statement, or an ``import_module("...")`` call, brings in."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            parts = module.split(".")
            base = ".".join(parts[: len(parts) - node.level] + ([node.module] if node.module else []))
        return [f"{base}.{alias.name}" for alias in node.names]
    if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        value = node.args[0].value
        if name == "import_module" and isinstance(value, str):
            return [value]
    return []


def package_imports(source: str, module: str) -> list[tuple[int, str]]:
    """Line and wing of every import from the package, wherever it stands in the module."""
    found = []
    for node in ast.walk(ast.parse(source)):
        for target in _import_targets(node, module):
            parts = target.split(".")
            if parts[0] != PACKAGE:
                continue
            # "from monai_salm import SALM" takes a name from the package itself, not a module.
            known = len(parts) > 1 and parts[1] in WINGS
            found.append((getattr(node, "lineno", 0), parts[1] if known or len(parts) > 2 else "__init__"))
    return found


def import_problems(source: str, module: str) -> Iterator[str]:
    """Which imports of a module the table does not have."""
    wing = wing_of(module)
    if wing not in WINGS:
        yield f"{module}: its wing {wing!r} is not in the order; add it to WINGS in {Path(__file__).name}"
        return
    allowed = {*WINGS[wing].split(), wing, "_version"}
    for line, target in package_imports(source, module):
        if target not in allowed:
            yield f"{module}:{line}: {wing} must not import {target}; it may import {WINGS[wing] or 'no other wing'}"


def _aliases(tree: ast.AST) -> dict[str, str]:
    """What the module's own names stand for: ``import torch as t`` -> ``{"t": "torch"}``."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                root = alias.name.split(".")[0]
                names[alias.asname or root] = alias.name if alias.asname else root
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return names


def _dotted(node: ast.AST, aliases: dict[str, str]) -> str:
    """``t.load`` -> ``torch.load``; empty for what is not a chain of names."""
    if isinstance(node, ast.Name):
        return aliases.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        base = _dotted(node.value, aliases)
        return f"{base}.{node.attr}" if base else ""
    return ""


def _import_danger(node: ast.AST) -> Iterator[str]:
    for target in _import_targets(node, PACKAGE):
        root, last = target.split(".")[0], target.split(".")[-1]
        if root in FORBIDDEN_MODULES:
            yield f"imports {root}: {FORBIDDEN_MODULES[root]}"
        elif target in FORBIDDEN_NAMES:
            yield f"imports {target}: {FORBIDDEN_NAMES[target]}"
        elif last in FORBIDDEN_ATTRIBUTES:
            yield f"imports {target}: {FORBIDDEN_ATTRIBUTES[last]}"


def _use_danger(node: ast.AST, aliases: dict[str, str]) -> Iterator[str]:
    if isinstance(node, ast.Name) and node.id in FORBIDDEN_BUILTINS and node.id not in aliases:
        yield f"uses the builtin {node.id}: it runs text as code"
    if isinstance(node, ast.Attribute):
        name = _dotted(node, aliases)
        if name in FORBIDDEN_NAMES:
            yield f"uses {name}: {FORBIDDEN_NAMES[name]}"
        elif node.attr in FORBIDDEN_ATTRIBUTES:
            yield f"uses .{node.attr}: {FORBIDDEN_ATTRIBUTES[node.attr]}"


def _allows_pickle(node: ast.Call, aliases: dict[str, str]) -> bool:
    """Whether a call passes ``allow_pickle`` as anything but the literal False."""
    given = [keyword.value for keyword in node.keywords if keyword.arg == "allow_pickle"]
    if _dotted(node.func, aliases) == "numpy.load":
        given += node.args[2:3]
    return any(not (isinstance(value, ast.Constant) and value.value is False) for value in given)


def danger_problems(source: str, module: str) -> Iterator[str]:
    """Where a module could run code from data, or write data that does."""
    tree = ast.parse(source)
    aliases = _aliases(tree)
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        for problem in (*_import_danger(node), *_use_danger(node, aliases)):
            yield f"{module}:{line}: {problem}"
        if isinstance(node, ast.Call) and _allows_pickle(node, aliases):
            yield f"{module}:{line}: allow_pickle must be left out or False: an object array is a pickle"


def length_problems(source: str, module: str) -> Iterator[str]:
    """Whether a module is too long."""
    lines = len(source.splitlines())
    if lines > MAX_LINES:
        yield f"{module}: {lines} lines, at most {MAX_LINES}; split it"


def _functions(source: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def function_problems(source: str, module: str) -> Iterator[str]:
    """Which functions are too long."""
    for node in _functions(source):
        lines = (node.end_lineno or node.lineno) - node.lineno + 1
        if lines > MAX_FUNCTION_LINES:
            yield f"{module}:{node.lineno}: {node.name} has {lines} lines, at most {MAX_FUNCTION_LINES}; split it"


def parameter_problems(source: str, module: str) -> Iterator[str]:
    """Which functions take too many parameters, ``self`` and ``cls`` not counted."""
    if wing_of(module) == "cli":
        return
    for node in _functions(source):
        given = node.args
        names = [one.arg for one in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
        names += [one.arg for one in (given.vararg, given.kwarg) if one]
        count = len([name for name in names if name not in ("self", "cls")])
        if count > MAX_PARAMETERS:
            yield f"{module}:{node.lineno}: {node.name} has {count} parameters, at most {MAX_PARAMETERS}; use settings"


def borrowing_problems(source: str, module: str) -> Iterator[str]:
    """Which imports of a test module are from another test module."""
    for node in ast.walk(ast.parse(source)):
        for target in _import_targets(node, module):
            if any(part.startswith("test_") for part in target.split(".")[:2]):
                yield f"{module}:{getattr(node, 'lineno', 0)}: imports {target}; move it to tests/helpers"


def readme_problems(text: str) -> Iterator[str]:
    """Which of the two commands the README lacks, each on a line of its own."""
    for command in README_COMMANDS:
        count = text.splitlines().count(command)
        if count != 1:
            yield f"README.md must have the line {command!r} once, it has it {count} times"


# ---------------------------------------------------------------------------------------------------------------------
# The package


def package_files() -> list[Path]:
    return sorted((ROOT / PACKAGE).rglob("*.py"))


@pytest.mark.parametrize(
    "check", [import_problems, danger_problems, length_problems, function_problems, parameter_problems]
)
def test_package_follows_the_rule(check: Callable[[str, str], Iterator[str]]) -> None:
    files = package_files()
    assert files, f"no modules under {ROOT / PACKAGE}"
    problems = [p for file in files for p in check(file.read_text("utf-8"), module_name(file, ROOT))]
    assert not problems, "\n".join(["", *problems])


def test_no_test_module_imports_another() -> None:
    files = sorted((ROOT / "tests").rglob("*.py"))
    problems = [p for file in files for p in borrowing_problems(file.read_text("utf-8"), module_name(file, ROOT))]
    assert not problems, "\n".join(["", *problems])


def test_readme_has_the_two_commands() -> None:
    assert list(readme_problems((ROOT / "README.md").read_text("utf-8"))) == []


def test_each_wing_imports_only_wings_above_it() -> None:
    order = list(WINGS)
    for wing, imports in WINGS.items():
        for other in imports.split():
            assert other in order[: order.index(wing)], f"{wing} imports {other}, which is not above it"


def test_every_import_of_the_table_is_used() -> None:
    used: dict[str, set[str]] = {wing: set() for wing in WINGS}
    for file in package_files():
        module = module_name(file, ROOT)
        used[wing_of(module)] |= {target for _, target in package_imports(file.read_text("utf-8"), module)}
    for wing, imports in WINGS.items():
        assert not set(imports.split()) - used[wing], f"{wing} no longer imports {set(imports.split()) - used[wing]}"


def test_no_module_is_loose() -> None:
    assert {file.name for file in (ROOT / PACKAGE).glob("*.py")} == HALL


# ---------------------------------------------------------------------------------------------------------------------
# The rules find what they are for


@pytest.mark.parametrize(
    ("module", "source", "target"),
    [
        ("noise.grid", "from monai_salm.store.store import NoiseStore", "store"),
        ("learning.scores", "from ..methods.loop import fit", "methods"),
        ("noise.grid", "from .. import learning", "learning"),
        ("store.store", "import monai_salm.methods.salm", "methods"),
        ("methods.salm", "from ..generate.precompute import precompute", "generate"),
        ("methods.__init__", "from ..evaluation import evaluate", "evaluation"),
        ("learning.trainer", "def f():\n    from monai_salm.methods import SALM", "methods"),
        ("noise.grid", "import importlib\nimportlib.import_module('monai_salm.learning.tasks')", "learning"),
        ("layouts.bids", "from monai_salm.publishing import publish", "publishing"),
        ("formats.nifti", "from monai_salm import IntensityWindow", "__init__"),
        ("formats.nifti", "import monai_salm", "__init__"),
        ("__init__", "from monai_salm.cli import main", "cli"),
        ("demo.run", "from monai_salm.cli import main", "cli"),
        ("shared.progress", "from monai_salm.learning.tasks import Task", "learning"),
        ("formats.nifti", "from monai_salm.learning.tasks import Task", "learning"),
    ],
)
def test_import_that_the_table_does_not_have_is_found(module: str, source: str, target: str) -> None:
    problems = list(import_problems(source, f"{PACKAGE}.{module}"))
    assert len(problems) == 1
    assert f"must not import {target};" in problems[0]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("learning.trainer", "from monai_salm.learning.tasks import Task\nfrom ..noise.window import IntensityWindow"),
        ("methods.salm", "from .base import Method\nfrom . import em\nfrom ..noise.grid import make_grid"),
        ("methods.__init__", "from .salm import SALM\nfrom monai_salm.methods.em import EM"),
        ("publishing.copying", "from ..layouts.nnunet import read\nfrom ..shared.files import hint"),
        ("__init__", "from .report import html\nfrom monai_salm.methods import SALM"),
        ("cli.__init__", "from monai_salm._version import __version__\nfrom ..demo.run import run"),
        ("shared.progress", "from .terminal import printable"),
        ("noise.grid", "import torch\nimport monai\nfrom monai.data import Dataset"),
    ],
)
def test_import_that_the_table_has_is_allowed(module: str, source: str) -> None:
    assert list(import_problems(source, f"{PACKAGE}.{module}")) == []


def test_module_outside_the_order_is_found() -> None:
    assert "add it to WINGS" in next(import_problems("", f"{PACKAGE}.surprise"))


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import pickle as p",
        "from pickle import loads",
        "def f():\n    import dill",
        "import importlib\nimportlib.import_module('pickle')",
        "import marshal",
        "import shelve",
        "import torch\ntorch.load('x')",
        "import torch as t\nload = t.load",
        "from torch import load",
        "import torch\ntorch.save({}, 'x')",
        "eval('1')",
        "list(map(eval, ['1']))",
        "import builtins\nbuiltins.exec('1')",
        "exec('1')",
        "__import__('os')",
        "import tarfile\ntarfile.open('x').extractall()",
        "import shutil\nshutil.unpack_archive('x')",
        "from shutil import unpack_archive",
        "from monai.apps import download_and_extract",
        "import pandas as pd\npd.read_pickle('x')",
        "import numpy as np\nnp.load('x', allow_pickle=True)",
        "import numpy as np\nflag = True\nnp.load('x', allow_pickle=flag)",
        "import numpy as np\nnp.load('x', None, True)",
        "from numpy import load\nload('x', None, True)",
    ],
)
def test_danger_is_found(source: str) -> None:
    problems = list(danger_problems(source, "planted"))
    assert len(problems) == 1
    assert problems[0].startswith("planted:")


@pytest.mark.parametrize(
    "source",
    [
        "def f(model):\n    return model.eval()",
        "import numpy as np\nnp.load('x')\nnp.load('x', allow_pickle=False)\nnp.load('x', None, False)",
        "import nibabel\nnibabel.load('x')",
        "from monai.data.utils import pickle_hashing\npickle_hashing([1])",  # hashes what runs already, reads nothing
        "from monai_salm.evaluation import evaluate\nevaluate()",
        "from safetensors.torch import load, save\nload(b'')",
        "text = 'import pickle; eval(1)'",
    ],
)
def test_harmless_code_passes(source: str) -> None:
    assert list(danger_problems(source, "harmless")) == []


def test_long_module_is_found() -> None:
    assert list(length_problems("x = 1\n" * MAX_LINES, "short")) == []
    assert list(length_problems("x = 1\n" * (MAX_LINES + 1), "long")) == ["long: 321 lines, at most 320; split it"]


def test_long_function_is_found() -> None:
    body = "    x = 1\n"
    assert list(function_problems("def f():\n" + body * (MAX_FUNCTION_LINES - 1), "short")) == []
    long = "class A:\n    async def f(self):\n" + f"    {body}" * MAX_FUNCTION_LINES
    assert list(function_problems(long, "long")) == ["long:2: f has 61 lines, at most 60; split it"]


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("def f(a, b, c, d, /, e, *, f, g, h): pass", 0),
        ("class A:\n    def f(self, a, b, c, d, e, f, g, h): pass", 0),
        ("def f(a, b, c, d, e, f, g, h, i): pass", 1),
        ("def f(a, b, c, d, e, f, g, *h, **i): pass", 1),
    ],
)
def test_many_parameters_are_found(source: str, found: int) -> None:
    assert len(list(parameter_problems(source, f"{PACKAGE}.noise.grid"))) == found
    assert list(parameter_problems(source, f"{PACKAGE}.cli.evaluating")) == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from test_methods import SHORT", 1),
        ("import tests.test_methods", 1),
        ("from tests.test_methods import SHORT", 1),
        ("from method_problems import SHORT\nfrom monai_salm import SALM", 0),
    ],
)
def test_borrowing_from_a_test_module_is_found(source: str, found: int) -> None:
    assert len(list(borrowing_problems(source, "tests.test_peers"))) == found


def test_readme_without_a_command_is_found() -> None:
    demo, test = README_COMMANDS
    assert list(readme_problems(f"```\n{demo}\n```\n```\n{test}\n```\n")) == []
    assert len(list(readme_problems(f"{demo}\n"))) == 1
    assert len(list(readme_problems(f"    {demo} {test}"))) == 2
