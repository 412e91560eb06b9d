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
