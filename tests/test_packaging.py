"""What is said of versions and tools agrees: the package's metadata, the workflow, and .ci/run."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
METADATA = configparser.ConfigParser()
METADATA.read(ROOT / "setup.cfg", encoding="utf-8")
SCRIPTS = (".ci/run", ".ci/from_wheel")


def jobs() -> dict[str, Any]:
    yaml = pytest.importorskip("yaml")
    found: dict[str, Any] = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text(encoding="utf-8"))["jobs"]
    return found


def commands(job: dict[str, Any]) -> list[str]:
    return [step["run"] for step in job["steps"] if "run" in step]


def test_the_workflow_runs_every_python_that_the_metadata_name() -> None:
    named = re.findall(r"Python :: (3\.\d+)$", METADATA["metadata"]["classifiers"], flags=re.MULTILINE)
    assert METADATA["options"]["python_requires"] == f">={named[0]}"
    for job in jobs().values():
        assert job["strategy"]["matrix"]["python"] == named


def test_the_workflow_runs_everything_on_linux_and_the_quick_tests_elsewhere() -> None:
    linux, elsewhere = jobs()["linux"], jobs()["elsewhere"]
    assert linux["runs-on"].startswith("ubuntu")
    assert commands(linux) == ["bash .ci/run"]
    assert [name.split("-")[0] for name in elsewhere["strategy"]["matrix"]["system"]] == ["macos", "windows"]
    assert commands(elsewhere)[-1] == "pytest"


def requirements() -> dict[str, str]:
    """The version range of each package that the metadata name."""
    lists = [METADATA["options"]["install_requires"], *METADATA["options.extras_require"].values()]
    lines = [line.strip() for text in lists for line in text.splitlines()]
    found = (re.fullmatch(r"([\w.-]+)([<>=][^;]*)?", line) for line in lines)
    return {match[1]: match[2] or "" for match in found if match}


@pytest.mark.parametrize("package", ["torch", "torchvision", "monai", "numpy", "nibabel", "scipy", "pydicom", "typer"])
def test_the_next_major_version_is_not_installed_unseen(package: str) -> None:
    assert "<" in requirements()[package]


def test_the_versions_of_development_are_within_the_bounds() -> None:
    specifiers = pytest.importorskip("packaging.specifiers")
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    tested = dict(line.split("==") for line in lines if not line.startswith("#"))
    for package, bounds in requirements().items():
        if package in tested:
            assert specifiers.SpecifierSet(bounds).contains(tested[package]), package
    assert {"torch", "monai", "numpy", "pydicom", "cryptography", "pytest"} <= set(tested)


def test_one_python_of_the_workflow_has_the_versions_of_development() -> None:
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")
    assert "PIP_CONSTRAINT=$PWD/constraints.txt" in script
    named = re.search(r"== (3\.\d+) \]\]", script)
    assert named is not None
    assert named[1] in jobs()["linux"]["strategy"]["matrix"]["python"]


def test_the_dev_extra_has_what_the_checks_run() -> None:
    extra = METADATA["options.extras_require"]["dev"].split()
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")
    for command, package in {"--cov": "pytest-cov", "python -m build": "build", "twine check": "twine"}.items():
        assert command in script
        assert package in extra


@pytest.mark.skipif(os.name == "nt", reason="has no execute permission")
@pytest.mark.parametrize("script", SCRIPTS)
def test_the_scripts_can_be_run(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)
    bash = shutil.which("bash")
    assert bash is not None
    assert subprocess.run([bash, "-n", ROOT / script], capture_output=True).stderr == b""
