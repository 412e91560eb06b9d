"""Kill ``monai-salm protect`` with SIGKILL at random moments, call it again until it is done, and look at every byte.

    python benchmarks/kill_protect.py --kills 50 --seed 0

The data set is a small folder of volumes with label maps and other files. Kill moments are uniform over the length of an
uninterrupted call, measured from its first line of work (imports do not count). Whenever a call was killed, what stands
at the output is nothing or a whole copy; whenever one comes to its end, the copy must equal an uninterrupted call's, byte
for byte, and nothing may be left beside it. Prints a line for each kill and one with the count; exits with 1 if not.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import nibabel
import numpy as np
import torch
from killing import Run, run_and_kill

_OPTIONS = ["--perturbation", "error_minimizing", "--rounds", "3", "--surrogate-steps", "2"]
_OPTIONS += ["--width", "0.05", "--device", "cpu", "--json", "--quiet"]


def small_folder(root: Path, cases: int = 12, side: int = 24) -> Path:
    """A Decathlon-like folder of noisy volumes, their label maps and a text file."""
    rng, listing = np.random.default_rng(0), []
    (root / "imagesTr").mkdir(parents=True)
    (root / "labelsTr").mkdir()
    for index in range(cases):
        image = rng.normal(0, 300, (side,) * 3).astype(np.int16)
        names = {"image": f"imagesTr/c{index}.nii.gz", "label": f"labelsTr/c{index}.nii.gz"}
        nibabel.save(nibabel.Nifti1Image(image, np.eye(4)), root / names["image"])
        nibabel.save(nibabel.Nifti1Image((image > 0).astype(np.uint8), np.eye(4)), root / names["label"])
        listing.append(names)
    (root / "dataset.json").write_text(json.dumps({"labels": {"0": "background", "1": "organ"}, "training": listing}))
    (root / "licence.txt").write_text("as before")
    return root


def work(report: Connection, source: str, output: str) -> None:
    """One call of the verb, in a process of its own; tells when it starts, publishes and is done."""
    from monai_salm.cli import app

    torch.set_num_threads(1)
    report.send("start")
    with redirect_stdout(io.StringIO()):
        app(["protect", source, output, *_OPTIONS], standalone_mode=False)
    report.send("done")


def contents(root: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


@dataclass
class Result:
    """What came of it.

    Args:
        kills: calls that were killed.
        jobs: copies that were completed and compared.
        differing: copies that were not as an uninterrupted call's, or beside which something was left.
        stages: what stood on the disk after each kill: ``"noise"`` unfinished, ``"copy"`` unfinished, or ``"whole"``.
    """

    kills: int = 0
    jobs: int = 0
    differing: int = 0
    stages: list[str] = field(default_factory=list)

    def line(self) -> str:
        """The count, in a line."""
        hit = ", ".join(f"{self.stages.count(name)} {name}" for name in ("noise", "copy", "whole"))
        return f"{self.kills} kills ({hit}), {self.jobs} copies completed and compared: {self.differing} differ"


def kill_and_compare(kills: int, seed: int, folder: Path, say: Callable[[str], None] = print) -> Result:
    """Kill and call again until there were as many kills as asked for, comparing each completed copy.

    Args:
        kills: how many.
        seed: of their moments.
        folder: for the data.
        say: takes the lines.
    """
    source = small_folder(folder / "set")
    whole = folder / "whole" / "set"
    whole.parent.mkdir()
    length = _protect(source, whole).seconds
    expected = contents(whole)
    say(f"an uninterrupted call takes {length:.2f} s")
    rng, result = random.Random(seed), Result()
    while result.kills < kills:
        output = folder / f"job{result.jobs}" / "set"
        output.parent.mkdir()
        while result.kills < kills:
            moment = rng.uniform(0, length)
            if _protect(source, output, moment).stage == "done":
                break
            result.kills += 1
            result.stages.append(_state(output, expected))
            say(f"kill {result.kills}: after {moment:.2f} s; left: {result.stages[-1]}")
        _protect(source, output)
        left = {path.name for path in output.parent.iterdir()} - {"set", "set.noise.db"}
        if contents(output) != expected or left:
            result.differing += 1
            say(f"copy {result.jobs} differs" if not left else f"beside copy {result.jobs} was left: {sorted(left)}")
        result.jobs += 1
        shutil.rmtree(output.parent)
    return result


def _protect(source: Path, output: Path, kill_after: float | None = None) -> Run:
    return run_and_kill(work, (str(source), str(output)), kill_after)


def _state(output: Path, expected: dict[str, bytes]) -> str:
    if output.exists():
        if contents(output) != expected:
            raise RuntimeError(f"{output} stands under its name and is not whole")
        return "whole"
    return "copy" if output.with_name(output.name + ".noise.db").exists() else "noise"


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="how many (default 50)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default 0)")
    given = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="kill-protect-"))
    try:
        result = kill_and_compare(given.kills, given.seed, folder)
    finally:
        shutil.rmtree(folder)
    print(result.line())
    return 1 if result.differing else 0


if __name__ == "__main__":
    sys.exit(main())
