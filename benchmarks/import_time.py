"""What ``import monai_salm`` adds to ``import monai``, and how soon the command line answers.

    python benchmarks/import_time.py [--repeats 7] [--modules] [--json]

Each measurement is a process of its own, so that nothing is imported before. What is compared is measured in turn, and the
import of the package within the process that has just imported MONAI. Medians are told, by the clock and by the processor's time.
``--modules`` lists the slowest modules of the whole package, as ``python -X importtime`` sees them.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from statistics import median
from typing import Any

_STEPS = {
    "import monai": "import monai",
    "import monai_salm, after it": "import monai_salm",
    "from monai_salm import SALMProtectd, after that": "from monai_salm import SALMProtectd",
    "every public name, after that": "[getattr(monai_salm, name) for name in monai_salm.__all__]",
}
_COMMANDS = {
    "monai-salm --help": ["--help"],
    "monai-salm protect --help": ["protect", "--help"],
    "TAB after monai-salm protect --m": [],
}
_TAB = {"_MONAI_SALM_COMPLETE": "complete_bash", "COMP_WORDS": "monai-salm protect --m", "COMP_CWORD": "2"}
_LIMITS = {"import monai_salm, after it": 100.0, "monai-salm --help": 2000.0}


def imports() -> dict[str, tuple[float, float]]:
    """Milliseconds of each step by the clock and of the processor, one after the other in one process."""
    timed = "\n".join(
        f"a, p = time.perf_counter(), time.process_time()\n{step}\n"
        f"print(1000 * (time.perf_counter() - a), 1000 * (time.process_time() - p), file=sys.stderr)"
        for step in _STEPS.values()
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import sys, time\n{timed}"], capture_output=True, text=True, check=True
    )
    lines = [line.split() for line in done.stderr.splitlines()[-len(_STEPS) :]]
    return {name: (float(clock), float(used)) for name, (clock, used) in zip(_STEPS, lines, strict=True)}


def command(arguments: list[str]) -> tuple[float, float]:
    """Milliseconds until the command line has answered, by the clock and of the processor."""
    environment = {**os.environ, **({} if arguments else _TAB)}
    start, before = time.perf_counter(), _children()
    code = "from monai_salm.cli import app; app(prog_name='monai-salm')"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout, "nothing was said"
    return 1000 * (time.perf_counter() - start), 1000 * (_children() - before)


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def slowest(count: int = 15) -> list[dict[str, Any]]:
    """The modules that take longest by themselves when every public name is imported after MONAI."""
    code = "import monai, monai_salm; [getattr(monai_salm, name) for name in monai_salm.__all__]"
    done = subprocess.run([sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True, check=True)
    lines = [line.removeprefix("import time:").split("|") for line in done.stderr.splitlines() if line.count("|") == 2]
    mark = next(i for i, line in enumerate(lines) if line[2].strip() == "monai_salm._version")
    rows = [{"module": name.strip(), "own time (ms)": int(own) / 1000} for own, _, name in lines[mark:]]
    return sorted(rows, key=lambda row: -float(row["own time (ms)"]))[:count]


def measure(repeats: int) -> list[dict[str, Any]]:
    """A row for each step and command, the median of so many processes."""
    found: dict[str, list[tuple[float, float]]] = {}
    for repeat in range(repeats + 1):
        now = imports() | {name: command(words) for name, words in _COMMANDS.items()}
        for name, value in now.items():
            if repeat:  # the first fills the disk's cache
                found.setdefault(name, []).append(value)
        print(f"{repeat}/{repeats}", file=sys.stderr)
    return [
        {
            "what": name,
            "ms": median(clock for clock, _ in values),
            "ms, processor time": median(used for _, used in values),
            "least ms": min(clock for clock, _ in values),
            "at most (ms)": _LIMITS.get(name),
        }
        for name, values in found.items()
    ]


def main() -> None:
    """Measure and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7, help="processes for each figure")
    parser.add_argument("--modules", action="store_true", help="list the slowest modules")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    options = parser.parse_args()
    result: dict[str, Any] = {"repeats": options.repeats, "import table": measure(options.repeats)}
    if options.modules:
        result["module table"] = slowest()
    for name in ("import table", "module table"):
        for row in result.get(name, []):
            print(
                "  ".join(
                    f"{key}: {value:.1f}" if isinstance(value, float) else f"{value}" for key, value in row.items()
                )
            )
    if options.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
