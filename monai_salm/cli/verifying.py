"""The verb that proves protected copies, to their owner and to readers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from monai_salm.cli import options as opt
from monai_salm.cli.listing import briefly, listed
from monai_salm.cli.running import Outcome
from monai_salm.shared.progress import ProgressCallback

if TYPE_CHECKING:
    from monai_salm.store.store import NoiseStore


def verify(
    source: Path,
    output: Path | None = None,
    store: Path | None = None,
    layout: str | None = None,
    jobs: int = 1,
    num_shards: int = 1,
    shard_index: int = 0,
    signer: Path | None = None,
    key: Path | None = None,
    unsigned: bool = False,
    *,
    progress: ProgressCallback,
) -> Outcome:
    """Prove that a protected copy is what it should be: noise, budget, headers, labels, files.

    Original, copy and store are read again from disk: original plus noise must be the copy, bit for bit, within the budget;
    labels, headers and all other files must be the original's. Problems are listed, and the exit code is then 1.

    Readers have neither originals nor store. They call "monai-salm verify COPY --signer KEY": every file must be as the owner
    signed it, and none may be missing or added.
    """
    shard = opt.shard(shard_index, num_shards)
    if output is not None:
        noise = opt.opened(store or opt.store_beside(output), key, unsigned)
        return verified(source, output, noise, layout, jobs, shard=shard, signer=signer, progress=progress)
    if signer is None or store is not None:
        raise typer.BadParameter("give INPUT and OUTPUT; or, as a reader, the copy and --signer")
    if layout is not None or num_shards > 1:
        raise typer.BadParameter("--layout and --num-shards say nothing about a copy that is checked by its signature")
    return _verify_copy(source, signer, jobs, progress)


def verified(
    source: Path,
    output: Path,
    store: NoiseStore,
    layout: str | None,
    jobs: int,
    skip_left_out: bool = False,
    **options: Any,
) -> Outcome:
    """Verify, and describe what was found; ``skip_left_out``: the call before has listed them."""
    from monai_salm.publishing import verify as verify_

    report = verify_(source, output, store, layout=layout, jobs=jobs, **options)
    data = {"ok": report.ok, "checked": report.checked, "problems": report.problems, "left_out": report.left_out}
    lines = [f"{report.checked} cases {'checked, problems:' if report.problems else 'verified'}"]
    lines += [*briefly(report.problems), *listed("left out", {} if skip_left_out else report.left_out)]
    return Outcome(data, lines, report.ok)


def _verify_copy(copy: Path, signer: Path, jobs: int, progress: ProgressCallback) -> Outcome:
    from monai_salm.publishing import verify_copy

    report, dataset = verify_copy(copy, signer, jobs=jobs, progress=progress)
    data = {"ok": report.ok, "checked": report.checked, "problems": report.problems, "dataset": dataset}
    said = ", ".join(f"{key} {value}" for key, value in dataset.items() if value is not None)
    if report.ok:
        lines = [f"{report.checked} files are as their owner signed them: {said}"]
    else:
        lines = [f"{report.checked} files checked, problems{f' ({said})' if said else ''}:", *briefly(report.problems)]
    return Outcome(data, lines, report.ok)
