"""The public interface, held to the list in ``public_api.txt``; and what importing it costs others.

A change of the list is a decision. If it is wanted, write the list again with ``python tests/test_api.py`` and the change into
CHANGELOG.md.
"""

from __future__ import annotations

import configparser
import inspect
import pydoc
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command

import monai_salm
from monai_salm.cli import app
from monai_salm.cli.manual import SHOW_ALL

ROOT = Path(__file__).resolve().parents[1]
LIST = Path(__file__).with_name("public_api.txt")


def signature(function: object) -> str:
    """Parameters and their defaults; types are told by mypy, and by docstrings."""
    shown = []
    parameters = list(inspect.signature(function).parameters.values())  # type: ignore[arg-type]
    for index, parameter in enumerate(parameters):
        if parameter.kind is parameter.KEYWORD_ONLY and (
            index == 0 or parameters[index - 1].kind is not parameter.kind
        ):
            shown.append("*")
        stars = {parameter.VAR_KEYWORD: "**", parameter.VAR_POSITIONAL: "*"}.get(parameter.kind, "")
        default = "" if parameter.default is parameter.empty else f"={_shown(parameter.default)}"
        shown.append(f"{stars}{parameter.name}{default}")
    return f"({', '.join(shown)})"


def _shown(value: object) -> str:
    if isinstance(value, float) and len(repr(value)) > 6 and (value * 255).is_integer():  # 0.2 stays 0.2
        return f"{value * 255:.0f}/255"
    return "..." if "factory" in repr(value) else repr(value)


def interface() -> Iterator[str]:
    """A line for every public name, method and verb."""
    for name in sorted(set(monai_salm.__all__) - {"__version__"}):
        value = getattr(monai_salm, name)
        if value.__name__ != name:
            yield f"{name} = {value.__name__}"
            continue
        if inspect.isclass(value) and issubclass(value, Warning):
            yield f"{name}({value.__base__.__name__})"
            continue
        yield f"{name}{signature(value)}"
        # The hooks of methods, masks, windows and tasks are for those who write new ones (CONTRIBUTING.md), and may change.
        if inspect.isclass(value) and not (hasattr(value, "spec") or hasattr(value, "choose")):
            yield from _members(value)
    commands = get_command(app).commands  # type: ignore[attr-defined]
    for verb, command in sorted(commands.items()):
        context = command.make_context(verb, ["-"], resilient_parsing=True)
        context.meta[SHOW_ALL] = True
        parameters = command.get_params(context)
        options = sorted(option for p in parameters for option in p.opts if option.startswith("--"))
        arguments = [p.metavar for p in parameters if p.param_type_name == "argument"]
        yield f"monai-salm {' '.join([verb, *arguments, *options])}"


def _members(value: type) -> Iterator[str]:
    for name, member in sorted(vars(value).items()):
        if isinstance(member, property) and not name.startswith("_"):
            yield f"{value.__name__}.{name}"
        elif inspect.isfunction(inspect.unwrap(getattr(member, "__func__", member))) and (
            not name.startswith("_") or name in ("__call__", "__len__", "__iter__", "__getitem__")
        ):
            yield f"{value.__name__}.{name}{signature(getattr(member, '__func__', member))}"


def test_the_public_interface_is_the_listed_one() -> None:
    listed, found = LIST.read_text(encoding="utf-8").splitlines(), list(interface())
    gone, new = [line for line in listed if line not in found], [line for line in found if line not in listed]
    assert found == listed, "\n".join(["gone:", *gone, "new:", *new, "If wanted: python tests/test_api.py"])


@pytest.mark.parametrize("name", sorted(monai_salm.__all__))
def test_config_files_find_every_name(name: str) -> None:
    """As MONAI looks up ``_target_``."""
    assert pydoc.locate(f"monai_salm.{name}") is getattr(monai_salm, name)
    assert name in dir(monai_salm)


@pytest.mark.parametrize("name", sorted(monai_salm.__all__))
def test_no_module_has_the_name_of_a_public_one(name: str) -> None:
    """Importing a module makes Python set it as an attribute of its package, which would hide what has its name."""
    package = ROOT / "monai_salm"
    assert not (package / name).exists()
    assert not (package / f"{name}.py").exists()


def test_every_public_name_has_a_docstring_with_its_arguments() -> None:
    values = [getattr(monai_salm, name) for name in sorted(set(monai_salm.__all__) - {"__version__"})]
    for value in values:
        if inspect.isclass(value) and issubclass(value, Warning):
            assert inspect.getdoc(value)
            continue
        documented = "\n".join(inspect.getdoc(base) or "" for base in getattr(value, "__mro__", (value,)))
        for parameter in inspect.signature(value).parameters:
            assert re.search(rf"^ *{parameter}: ", documented, re.MULTILINE), (
                f"{value.__name__} does not say what {parameter} is"
            )


def test_unknown_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'SLAM'"):
        monai_salm.SLAM  # noqa: B018


# ---------------------------------------------------------------------------------------------------------------------
# What an import brings in


def brought_in(*steps: str) -> list[set[str]]:
    """Modules that each step of a program adds to those before it, in a process of its own."""
    code = "import sys\nknown = set()\n"
    for step in steps:
        code += f"{step}\nprint(*sorted(set(sys.modules) - known))\nknown = set(sys.modules)\n"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [set(line.split()) for line in done.stdout.splitlines()]


def roots(modules: set[str]) -> set[str]:
    return {module.split(".")[0] for module in modules}


#: Packages that only an extra installs, by the name they are imported by.
IMPORTED_AS = {"pylibjpeg-openjpeg": "openjpeg", "pylibjpeg-rle": "rle", "python-gdcm": "gdcm", "pyyaml": "yaml",
               "scikit-learn": "sklearn", "pypng": "png", "pytest-timeout": "pytest_timeout"}  # fmt: skip


def optional_packages() -> set[str]:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = "\n".join(settings["options.extras_require"].values()).split()
    wanted = {re.split(r"[<>=;\[]", line)[0] for line in lines if not line.startswith("monai_salm")}
    return {IMPORTED_AS.get(name, name.replace("-", "_")) for name in wanted}


def test_what_an_import_brings_in() -> None:
    """Next to nothing, so that it costs nothing (benchmarks/import_time.py measures how much); each name brings in its own module
    and those below, and what an extra installs is imported where it is used."""
    every = "\n".join(f"monai_salm.{name}" for name in monai_salm.__all__)
    _, package, transform, everything = brought_in(
        "import monai", "import monai_salm", "monai_salm.SALMProtectd", every
    )
    assert package == {"monai_salm", "monai_salm._version"}
    assert "monai_salm.transforms" in transform
    parts = {module.split(".")[1] for module in transform if module.startswith("monai_salm.")}
    not_needed = {
        "evaluation",
        "publishing",
        "layouts",
        "formats",
        "countermeasures",
        "report",
        "cli",
        "demo",
        "methods",
    }
    assert not parts & not_needed
    assert "monai_salm.evaluation" in everything
    assert not roots(package | transform | everything) & optional_packages()
    assert {"yaml", "pydicom", "tifffile", "pandas", "nilearn", "pyrage", "fire"} <= optional_packages()


def test_the_command_line_answers_without_torch() -> None:
    """Help of any verb, the version, wrong usage and completion: nobody waits seconds for a word."""
    ask = "\n".join(
        [
            "import contextlib, io, os, sys",
            "from monai_salm.cli import app",
            "for words in (['--help'], ['--version'], ['protect', '--help'], ['evaluate', '--help'], ['protect'], ['nope']):",
            "    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):",
            "        with contextlib.suppress(SystemExit):",
            "            app(words)",
            "os.environ.update(_X_COMPLETE='complete_bash', COMP_WORDS='x protect a b --perturbation e', COMP_CWORD='5')",
            "with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.suppress(SystemExit):",
            "    app(prog_name='x')",
            "assert said.getvalue().split() == ['error_minimizing'], said.getvalue()",
        ]
    )
    found = roots(brought_in(ask)[0])
    assert "typer" in found
    assert not found & ({"torch", "monai", "numpy", "nibabel", "scipy", "PIL"} | optional_packages())


def test_settings_and_their_help_need_neither_torch_nor_numpy() -> None:
    """Settings hold no algorithm: their classes, the methods' names and the help of all options import no network code."""
    ask = "\n".join(
        [
            "import contextlib, io",
            "from monai_salm import SALM, ClassTexture, REM, TopK",
            "from monai_salm.methods.presets import METHODS, method_from_spec",
            "assert [method_from_spec(kind().spec()) for kind in METHODS.values()] == [kind() for kind in METHODS.values()]",
            "from monai_salm.cli import app",
            "with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.suppress(SystemExit):",
            "    app(['protect', '--help-all'])",
            "assert '--attack-radius' in said.getvalue()",
        ]
    )
    assert not roots(brought_in(ask)[0]) & {"torch", "monai", "numpy", "nibabel"}


if __name__ == "__main__":
    LIST.write_text("\n".join(interface()) + "\n", encoding="utf-8")
