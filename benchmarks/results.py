"""Runs the benchmarks of this folder and writes what they measured to ``RESULTS.md``.

    python benchmarks/results.py --data brain28.npz                       # all but nnunet, which takes hours
    python benchmarks/results.py --data brain28.npz --only speed,memory   # some; the others' figures are kept
    python benchmarks/results.py --only ""                                # none: the page is written again
    python benchmarks/results.py --data a.npz b.npz --only strength --work kept   # two sets; goes on where it stopped
    python benchmarks/results.py --data a.npz --only strength --options "--ways jpeg;blur" --label "adversaries"

Each benchmark runs in a process of its own and prints one JSON object; it is kept in ``results/NAME.json`` with the machine,
the versions, the date and the commit, so that figures of different days stand beside each other honestly. On a machine with
a GPU the figures go to ``results/NAME.cuda.json`` and a section of their own.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
FIGURES, PAGE = HERE / "results", HERE / "RESULTS.md"

#: Name -> script, its options ({data} is the data set, {work} a folder for files), and the heading of its section.
BENCHMARKS: dict[str, tuple[str, list[str], str]] = {
    "strength": ("strength.py", ["{data}", "--out", "{work}", "--json"], "Strength"),
    "speed": ("speed.py", ["{data}", "--json"], "Speed beside a plain reference loop of EM"),
    "overhead": ("overhead.py", ["--json"], "Noise steps beside the network's bare passes"),
    "gpu": ("gpu.py", ["--json"], "Noise steps on a GPU"),
    "memory": ("memory.py", ["--json"], "Memory and time against the number of samples"),
    "store_size": ("store_size.py", ["--json"], "Size of the store"),
    "in_loader": ("in_loader.py", ["--json"], "Cost of the transform in a loader"),
    "import_time": ("import_time.py", ["--json"], "Import and command line"),
    "at_size": ("at_size.py", ["--json"], "Sets of a hospital's size"),
    "scaling": ("scaling.py", ["{data}", "--json"], "Scaling over ranks"),
    "nnunet": ("nnunet.py", ["{data}", "--out", "{work}", "--json"], "nnU-Net itself"),
}
#: Those that take several data sets.
SEVERAL = ("strength", "nnunet")
#: Those that are run only where they are named: their data sets, or machines, are others.
NAMED = ("nnunet", "gpu")


def machine() -> dict[str, Any]:
    """What the figures were measured on, and with."""
    import torch

    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    versions = {name: _version(name) for name in ("monai_salm", "torch", "monai", "numpy")}
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "gpu": gpu,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **versions,
        "date": datetime.date.today().isoformat(),
        "commit": _git("rev-parse", "--short", "HEAD") + ("+" if _git("status", "--porcelain", "monai_salm") else ""),
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # run from a checkout
        return "uninstalled"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(HERE), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def run(name: str, data: Sequence[str], more: Sequence[str] = (), work: str | None = None, label: str = "") -> Path:
    """Run a benchmark and keep its figures.

    Args:
        name: one of ``BENCHMARKS``.
        data: data sets; those of ``SEVERAL`` take all, the others the first.
        more: further options of its script.
        work: folder that keeps what it can go on from; None is one for this call alone.
        label: keeps the figures beside those of the same benchmark with other options.

    Returns:
        The file that holds them.

    Raises:
        SystemExit: if it needs a data set and has none.
        subprocess.CalledProcessError: if it fails; earlier figures are kept.
    """
    script, options, _ = BENCHMARKS[name]
    if not data and "{data}" in options:
        raise SystemExit(f"benchmark {name} needs a data set: give --data")
    facts = machine()
    with nullcontext(work) if work else tempfile.TemporaryDirectory(prefix=f"{name}-") as folder:
        sets = data if name in SEVERAL else data[:1]
        filled = [word for option in options for word in (sets if option == "{data}" else [option.format(work=folder)])]
        command = [sys.executable, str(HERE / script), *filled, *more]
        finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        FIGURES.mkdir(exist_ok=True)
        for log in Path(folder).glob(f"{name}.log"):
            shutil.copyfile(log, FIGURES / log.name)
    # The last line holds the figures. Earlier lines are messages of the script.
    figures = json.loads(finished.stdout.strip().splitlines()[-1])
    target = FIGURES / f"{name}{'-' + label.replace(' ', '-') if label else ''}{'.cuda' if facts['gpu'] else ''}.json"
    call = shlex.join([script, *options, *more]).replace(" --json", "").replace("'{data}'", "DATA")
    kept = {"machine": facts, "label": label, "call": call.replace("'{work}'", "WORK"), "figures": figures}
    target.write_text(json.dumps(kept, indent=1) + "\n")
    return target


def page(folder: Path) -> str:
    """The page, from the figures that are kept in a folder."""
    lines = [
        "# Results",
        "",
        "Written by `benchmarks/results.py` from the figures in `benchmarks/results/`; not to be edited. Each section says "
        "on what machine, with which versions and when it was measured. `benchmarks/README.md` says how to run them.",
    ]
    for name, (_, _, heading) in BENCHMARKS.items():
        own = [path for path in sorted(folder.glob(f"{name}*.json")) if path.name[len(name)] in ".-"]
        for path in sorted(own, key=lambda path: (".cuda" in path.name, "-" in path.name)):
            kept = json.loads(path.read_text())
            of = "".join(f", {word}" for word in (kept.get("label"), ".cuda" in path.name and "on a GPU") if word)
            lines += ["", f"## {heading}{of}", "", *_section(kept)]
    return "\n".join(lines) + "\n"


def _section(kept: Mapping[str, Any]) -> list[str]:
    facts = dict(kept["machine"])
    where = f"{facts.pop('processor')}, {facts.pop('cores')} cores" + (f", {facts['gpu']}" if facts["gpu"] else "")
    facts.pop("gpu")
    lines = [f"`{kept['call']}`", "", where + "; " + ", ".join(f"{k} {v}" for k, v in facts.items()) + "."]
    plain = {k: v for k, v in kept["figures"].items() if not isinstance(v, dict | list) and v is not None}
    if plain:
        lines += ["", "; ".join(f"{_words(k)}: {_cell(v)}" for k, v in plain.items()) + "."]
    # Raw runs stay in the JSON file; the page shows the tables with these names.
    tables = {k: v for k, v in kept["figures"].items() if "table" in k and isinstance(v, list) and v}
    for name, rows in tables.items():
        if name != "table":
            lines += ["", f"{_words(name.replace('table', '').strip('_'))}:"]
        lines += ["", *table(rows)]
    return lines


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Markdown lines of a table; columns are the rows' keys, in the order in which they come up."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = ["| " + " | ".join(_words(c) for c in columns) + " |", "|---" * len(columns) + "|"]
    return lines + ["| " + " | ".join(_cell(row.get(c)) for c in columns) + " |" for row in rows]


def _words(name: str) -> str:
    return name.replace("_", " ")


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value).replace("|", "/")


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", nargs="+", default=[], help="data sets: strength and nnunet take all, speed and scaling the first"
    )
    usual = ",".join(name for name in BENCHMARKS if name not in NAMED)
    parser.add_argument("--only", default=usual, help="which to run, separated by commas (default: %(default)s)")
    parser.add_argument("--options", default="", help="further options, given to each script that is run")
    parser.add_argument("--label", default="", help="keep the figures under a name of their own, beside the others")
    parser.add_argument("--work", help="folder for copies and victims of strength and nnunet, which go on from there")
    given = parser.parse_args(arguments)
    wanted = [name.strip() for name in given.only.split(",") if name.strip()]
    unknown = sorted(set(wanted) - set(BENCHMARKS))
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(BENCHMARKS)}")
    failed = []
    for name in wanted:
        try:
            print(f"{name}: {run(name, given.data, shlex.split(given.options), given.work, given.label)}", flush=True)
        except (subprocess.CalledProcessError, ValueError, IndexError) as error:  # the others are still worth having
            failed.append(name)
            print(f"{name} failed: {error}", file=sys.stderr, flush=True)
    PAGE.write_text(page(FIGURES))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
