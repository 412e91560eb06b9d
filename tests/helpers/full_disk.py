"""Verbs on a disk that is full, and the same calls when there is room. As a program it mounts small disks of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from typer.testing import CliRunner

SHORT = [
    "--perturbation",
    "error_minimizing",
    "--rounds",
    "2",
    "--surrogate-steps",
    "2",
    "--width",
    "0.05",
    "--device",
    "cpu",
]
EVALUATE = ["--victims", "resnet10", "--width", "0.05", "--epochs", "1", "--seeds", "0", "--pipelines", "plain"]
EVALUATE += ["--countermeasures", "none", "--fractions", "1", "--controls", "none", "--device", "cpu"]
VERBS = ("generate", "publish", "restore", "protect", "evaluate")


def small_set(root: Path) -> Path:
    """A folder of 12 small pictures of two classes, four of them to test on, and a text."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("test", 2)):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 256, (32, 32)).astype(np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{index}.png")
    (root / "LICENSE.txt").write_text("as before")
    return root


def arguments(verb: str, source: Path, made: Path, disk: Path) -> list[str]:
    """A call of a verb that writes to ``disk``; ``made`` has what the verbs before it write."""
    calls = {
        "generate": [source, "--store", disk / "noise.db", *SHORT],
        "publish": [source, disk / "out", "--store", disk / "noise.db"],
        "restore": [made / "out", disk / "back", "--store", made / "noise.db"],
        "protect": [source, disk / "out", "--store", disk / "noise.db", *SHORT],
        "evaluate": [source, made / "out", *EVALUATE, "--resume", disk / "cells.jsonl", "--html", disk / "report.html"],
    }
    return [verb, *map(str, calls[verb]), "--quiet"]


def prepare(verb: str, made: Path, disk: Path) -> None:
    """Lay on the disk what is there before the verb is called."""
    if verb == "publish":
        shutil.copy(made / "noise.db", disk / "noise.db")


def make_all(source: Path, made: Path) -> None:
    """What all verbs write where there is room, to compare with."""
    made.mkdir()
    for verb in ("generate", "publish", "restore"):
        code, said = call(arguments(verb, source, made, made))
        assert code == 0, said


def call(arguments: Sequence[str]) -> tuple[int, list[str]]:
    """The exit code of a call, and what it said to stderr."""
    from monai_salm.cli import app

    result = CliRunner().invoke(app, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stderr.splitlines()


def contents(root: Path) -> dict[str, bytes]:
    """Every file of a folder, or a single file."""
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def noise_of(store: Path) -> dict[bytes, bytes]:
    """All noise of a store, by image."""
    from monai_salm.store.store import NoiseStore

    opened = NoiseStore(store)
    found = {noise.digest: noise.codes.tobytes() for noise in opened}
    opened.close()
    return found


def differences(verb: str, made: Path, disk: Path) -> list[str]:
    """What a verb has written otherwise than where there was room."""
    found = []
    if verb in ("generate", "protect") and noise_of(disk / "noise.db") != noise_of(made / "noise.db"):
        found.append("other noise")
    for name in ("out", "back"):
        if (disk / name).exists() and contents(disk / name) != contents(made / name):
            found.append(f"another {name}")
    wanted = {"generate": "noise.db", "publish": "out", "protect": "out", "restore": "back", "evaluate": "report.html"}
    if not (disk / wanted[verb]).exists():
        found.append("nothing")
    return found + [path.name for path in disk.iterdir() if path.name.endswith((".work", ".partial", ".tmp"))]


def fill(verb: str, source: Path, made: Path, disk: Path, room: Callable[[], object]) -> list[str] | None:
    """Call a verb on a disk, and again after ``room`` has made room; None if the first call had room.

    Returns:
        What was not as it should be.
    """
    prepare(verb, made, disk)
    given = arguments(verb, source, made, disk)
    code, said = call(given)
    room()
    if code == 0:
        return None
    wrong = [] if code == 1 and len(said) == 1 and "room" in said[0] else [f"exit code {code}: {said}"]
    code, again = call(given)
    return [*wrong, *([] if code == 0 else [f"then exit code {code}: {again}"]), *differences(verb, made, disk)]


def main(folder: Path, verbs: Sequence[str], steps: int) -> None:
    """In a mount namespace: every verb on disks of growing size; prints how many were full, and what was wrong."""
    source, made, disk = small_set(folder / "set"), folder / "made", folder / "disk"
    make_all(source, made)
    disk.mkdir()
    counts: dict[str, int] = dict.fromkeys(verbs, 0)
    problems = []

    def mount(size: int, *more: str) -> None:
        options = ",".join([*more, f"size={size}k"])
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)], check=True)

    for verb in verbs:
        mount(1 << 16)
        prepare(verb, made, disk)
        before = _used(disk)
        code, said = call(arguments(verb, source, made, disk))
        assert code == 0, said
        needed = 2 * _used(disk) - before
        subprocess.run(["umount", "-l", str(disk)], check=True)
        for step in range(1, steps + 1):
            size = (before + (needed - before) * step // steps) // 4096 * 4
            mount(max(4, size))
            wrong = fill(verb, source, made, disk, lambda: mount(1 << 16, "remount"))
            counts[verb] += wrong is not None
            problems += [f"{verb}, {size} kB: {what}" for what in wrong or ()]
            subprocess.run(["umount", "-l", str(disk)], check=True)
    print(json.dumps({"full": counts, "problems": problems}))


def _used(disk: Path) -> int:
    return shutil.disk_usage(disk).used


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2].split(","), int(sys.argv[3]))
