"""Kill a verb of ``monai-salm`` with SIGKILL at random moments, call it again until it is done, and look at every byte.

    python benchmarks/kill_protect.py --kills 40 --seed 0 --verbs generate,publish,verify,restore,protect,evaluate

The data set is a small folder of volumes with label maps and other files. Kill moments are uniform over the length of an
uninterrupted call, measured from its first line of work (imports do not count). The surrogates' training is kept after every
step. Whenever a call was killed, what stands at its output is nothing or whole; whenever one comes to its end, the output must
equal an uninterrupted call's, byte for byte (of a store: all noise; of an evaluation: all but times), and nothing may be left
beside it. Prints a line for each kill and one with the counts of each verb; exits with 1 if not.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import nibabel
import numpy as np
import torch
from killing import Run, run_and_kill

from monai_salm.store.store import NoiseStore

_STORE = "set.noise.db"

_NOISE = [
    "--perturbation",
    "error_minimizing",
    "--rounds",
    "3",
    "--surrogate-steps",
    "4",
    "--width",
    "0.05",
    "--device",
    "cpu",
]
_CELLS, _REPORT = "cells.jsonl", "report.html"
_EVALUATION = ["--width", "0.05", "--epochs", "1", "--seeds", "0", "--fractions", "1", "--controls", "none"]
_EVALUATION += ["--pipelines", "plain", "--countermeasures", "none", "--device", "cpu"]
VERBS = ("generate", "publish", "verify", "restore", "protect", "evaluate")


def small_folder(root: Path, cases: int = 12, side: int = 24, seed: int = 0) -> Path:
    """A Decathlon-like folder of noisy volumes, their label maps and a text file."""
    rng, listing = np.random.default_rng(seed), []
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


def work(report: Connection, arguments: list[str]) -> None:
    """One call of a verb, in a process of its own; tells when it starts and is done."""
    from monai_salm.cli import app
    from monai_salm.methods import surrogates

    torch.set_num_threads(1)
    surrogates._CHECKPOINT_SECONDS = 0.0
    report.send("start")
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        app([*arguments, "--json", "--quiet"], standalone_mode=False)
    report.send("done")


@dataclass(frozen=True)
class Call:
    """A verb in a folder ``job``, which may use what an uninterrupted protect has left in the folder ``whole``.

    Args:
        verb: its name.
        source: the data set; ``test`` beside it is another.
        whole: holds ``set``, a whole copy, and its store.
    """

    verb: str
    source: Path
    whole: Path

    def begin(self, job: Path) -> None:
        """Make the folder, with what is there before the call."""
        job.mkdir()
        if self.verb in ("publish", "verify"):
            shutil.copy(self.whole / _STORE, job)
        if self.verb == "verify":
            shutil.copytree(self.whole / "set", job / "set")

    def run(self, job: Path, kill_after: float | None = None) -> Run:
        """Make the call, or kill it."""
        store, output = job / _STORE, job / "set"
        given: dict[str, list[object]] = {
            "generate": [self.source, "--store", store, *_NOISE],
            "publish": [self.source, output, "--store", store, "--overwrite"],
            "verify": [self.source, output, "--store", store],
            "restore": [self.whole / "set", output, "--store", self.whole / _STORE, "--overwrite"],
            "protect": [self.source, output, *_NOISE],
            "evaluate": [
                *(self.source, self.whole / "set", "--test", self.source.with_name("test")),
                *(*_EVALUATION, "--resume", job / _CELLS, "--html", job / _REPORT),
            ],
        }
        return run_and_kill(work, ([self.verb, *map(str, given[self.verb])],), kill_after)

    def result(self, job: Path) -> dict[str, bytes]:
        """What the call has written, or was to leave alone."""
        if self.verb == "evaluate":
            return _cells(job / _CELLS)
        found = {} if self.verb == "generate" else contents(job / "set")
        if self.verb in ("generate", "protect", "verify") and (job / _STORE).exists():
            store = NoiseStore(job / _STORE)
            found |= {noise.digest.hex(): noise.codes.tobytes() for noise in store}
            store.close()
        return found

    def state(self, job: Path, expected: dict[str, bytes]) -> str:
        """What a kill has left: ``"nothing"`` under its name, or what is ``"whole"``."""
        output = job / {"generate": _STORE, "evaluate": _REPORT}.get(self.verb, "set")
        if not output.exists():
            return "nothing"
        if self.result(job) != expected:
            raise RuntimeError(f"{output} stands under its name and is not whole")
        return "whole"


def _cells(journal: Path) -> dict[str, bytes]:
    """What networks scored, without the times that it took."""
    found = {}
    for line in journal.read_text().splitlines()[1:]:
        for cell in json.loads(line)["cells"]:
            key = ", ".join(str(cell[name]) for name in ("victim", "seed", "data", "pipeline", "countermeasure"))
            found[key] = json.dumps({name: value for name, value in cell.items() if name != "seconds"}).encode()
    return found


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
        stages: what stood under its name after each kill: ``"nothing"`` or what is ``"whole"``.
    """

    kills: int = 0
    jobs: int = 0
    differing: int = 0
    stages: list[str] = field(default_factory=list)

    def line(self) -> str:
        """The count, in a line."""
        hit = ", ".join(f"{self.stages.count(name)} {name}" for name in ("nothing", "whole"))
        return f"{self.kills} kills (then {hit}), {self.jobs} jobs completed and compared: {self.differing} differ"


def kill_and_compare(
    kills: int, seed: int, folder: Path, say: Callable[[str], None] = print, verb: str = "protect"
) -> Result:
    """Kill and call again until there were as many kills as asked for, comparing each completed job.

    Args:
        kills: how many.
        seed: of their moments.
        folder: for the data.
        say: takes the lines.
        verb: what is called.
    """
    source = small_folder(folder / "set")
    small_folder(folder / "test", cases=4, seed=1)
    whole, call = folder / "whole", Call(verb, source, folder / "whole")
    Call("protect", source, whole).begin(whole)
    length = Call("protect", source, whole).run(whole).seconds
    if verb != "protect":
        call.begin(folder / "job")
        length = call.run(folder / "job").seconds
    expected = call.result(whole if verb == "protect" else folder / "job")
    say(f"an uninterrupted {verb} takes {length:.2f} s")
    rng, result = random.Random(seed), Result()
    while result.kills < kills:
        job = folder / f"job{result.jobs}"
        call.begin(job)
        while result.kills < kills:
            moment = rng.uniform(0, length)
            if call.run(job, moment).stage == "done":
                break
            result.kills += 1
            result.stages.append(call.state(job, expected))
            say(f"kill {result.kills}: after {moment:.2f} s; left: {result.stages[-1]}")
        call.run(job)
        left = {path.name for path in job.iterdir()} - {"set", _STORE, _CELLS, _REPORT}
        if call.result(job) != expected or left:
            result.differing += 1
            say(f"job {result.jobs} differs" if not left else f"beside job {result.jobs} was left: {sorted(left)}")
        result.jobs += 1
        shutil.rmtree(job)
    return result


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="how many of each verb (default 50)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default 0)")
    parser.add_argument("--verbs", default="protect", help=f"some of {','.join(VERBS)} (default protect)")
    given = parser.parse_args(arguments)
    failed = False
    with tempfile.TemporaryDirectory(prefix="kill-protect-") as root:
        os.environ["MONAI_SALM_KEY"] = f"{root}/owner.key"
        for verb in given.verbs.split(","):
            folder = Path(root, verb)
            folder.mkdir()
            result = kill_and_compare(given.kills, given.seed, folder, verb=verb)
            print(f"{verb}: {result.line()}", flush=True)
            failed |= bool(result.differing)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
