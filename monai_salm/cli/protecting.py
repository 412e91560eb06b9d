"""The verbs that make, prove and undo protected copies."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from monai_salm.cli import options as opt
from monai_salm.cli import readers
from monai_salm.cli.listing import briefly, class_lines, kept_lines, listed, not_copied, window_text
from monai_salm.cli.method_options import make_method
from monai_salm.cli.options import CopyOptions, NoiseOptions, store_beside
from monai_salm.cli.running import Outcome
from monai_salm.jobs.launch import launch
from monai_salm.shared.files import inside
from monai_salm.shared.progress import ProgressCallback

if TYPE_CHECKING:
    from monai_salm.publishing import PublishReport
    from monai_salm.store.store import NoiseStore


def generate(
    source: Path,
    store: Path,
    noise: NoiseOptions,
    seed: int = 0,
    overwrite: bool = False,
    key: Path | None = None,
    *,
    progress: ProgressCallback,
    **texts: str | None,
) -> Outcome:
    """Make the noise of a data set and keep it in a store.

    The first of the three steps of protect. The same call, made again after an interruption, goes on where it stopped and ends
    in the same bytes. "torchrun -m monai_salm generate ..." shares the work among several GPUs or machines.
    """
    made, data = _generate(source, store, noise, texts, seed, overwrite, progress, key=key)
    if launch().rank > 0:  # rank 0 says what came out; other machines need not even see the store
        return Outcome({}, ())
    left_out = {case["name"]: case["reason"] for case in data["skipped"]}
    return Outcome(data, [*_described(data), *listed("left out", left_out), *kept_lines(made)], not left_out)


def publish(
    source: Path,
    output: Path,
    store: Path,
    splits: str = "train",
    copy: list[str] | None = None,
    overwrite: bool = False,
    *,
    options: CopyOptions,
    sign_key: Path | None = None,
    dataset_version: str | None = None,
    progress: ProgressCallback,
) -> Outcome:
    """Write a protected copy of a data set with the noise of a store.

    The second of the three steps of protect. The copy appears under its name only when it is whole; the same call, made again
    after an interruption, goes on where it stopped. Several calls can share the files (--num-shards).
    """
    from monai_salm.publishing import publish as publish_

    settings = {**options.read(), "splits": opt.read("--splits", readers.names, splits), "copy": copy or ()}
    settings |= {"overwrite": overwrite, "sign_key": sign_key, "dataset_version": dataset_version}
    return _written(
        publish_(source, output, options.opened(store), progress=progress, **settings), "protected", options
    )


def protect(
    source: Path,
    output: Path,
    noise: NoiseOptions,
    store: Path | None = None,
    copy: list[str] | None = None,
    seed: int = 0,
    overwrite: bool = False,
    jobs: int = 1,
    sign_key: Path | None = None,
    key: Path | None = None,
    dataset_version: str | None = None,
    *,
    progress: ProgressCallback,
    **texts: str | None,
) -> Outcome:
    """Make the noise of a data set, write its protected copy, and prove that the copy is what it should be.

    Runs generate, publish and verify. Publish OUTPUT, and keep INPUT and the noise store to yourself. After an interruption the
    same call goes on where it stopped. Images that cannot be protected are left out and listed, and the exit code is then 1;
    monai-salm plan lists them before any work.
    """
    from monai_salm.publishing import check_publishable
    from monai_salm.publishing.staging import Staging

    splits, place = noise.read()["splits"], store or store_beside(output)
    options = CopyOptions(noise.layout, jobs, key=key)
    make_method(noise.method, texts)  # wrong settings are reported before the data set is read
    Staging(output).remove_finished()
    # Before hours of work, not after them. With a store there are none ahead, and what an earlier call published may stand.
    resumed = place.exists() and output.exists() and not overwrite
    check: dict[str, Any] = {"layout": noise.layout, "splits": splits, "copy": copy or (), "sign_key": sign_key}
    check_publishable(source, output, place, overwrite=overwrite or resumed, **check)
    made, data = _generate(source, place, noise, texts, seed, overwrite, progress, reuse=True, key=key)
    lines, kept = _described(data), kept_lines(made)
    if resumed and output.exists():
        verified = _verified(source, output, made, options, progress)
        if verified.data["problems"]:
            raise FileExistsError(
                f"{output} exists and is not what these settings give; give another output or overwrite it (--overwrite)"
            )
        lines += [f"{output} was there already", *verified.lines, *kept]
        return Outcome({**data, "output": str(output), **verified.data}, lines, verified.ok)
    signed: dict[str, Any] = {"sign_key": sign_key, "dataset_version": dataset_version, "progress": progress}
    published = publish(source, output, made.path, noise.splits, copy, overwrite, options=options, **signed)
    verified = _verified(source, output, made, options, progress, skip_left_out=True)
    lines += [*published.lines, *verified.lines, *kept]
    return Outcome({**data, **published.data, **verified.data}, lines, published.ok and verified.ok)


def restore(
    protected: Path,
    restored: Path,
    store: Path | None = None,
    overwrite: bool = False,
    *,
    options: CopyOptions,
    progress: ProgressCallback,
) -> Outcome:
    """Take the noise off a protected copy: the exact originals, for those who have the store and its owner's key.

    Voxels and headers come back bit for bit, and are checked against the digests that the store keeps of the originals. With
    --unsigned nothing proves that the store is the owner's, and that they are the originals.
    """
    from monai_salm.publishing import restore as restore_

    settings, noise = options.read(), options.opened(store or store_beside(protected))
    return _written(
        restore_(protected, restored, noise, overwrite=overwrite, progress=progress, **settings), "restored", options
    )


def verify(
    source: Path,
    output: Path | None = None,
    store: Path | None = None,
    *,
    options: CopyOptions,
    signer: Path | None = None,
    progress: ProgressCallback,
) -> Outcome:
    """Prove that a protected copy is what it should be: noise, budget, headers, labels, files.

    Original, copy and store are read again from disk: original plus noise must be the copy, bit for bit, within the budget;
    labels, headers and all other files must be the original's. Problems are listed, and the exit code is then 1.

    Readers have neither originals nor store. They call "monai-salm verify COPY --signer KEY": every file must be as the owner
    signed it, and none may be missing or added.
    """
    settings = options.read()
    if output is not None:
        noise = options.opened(store or store_beside(output))
        return _verified(source, output, noise, options, progress, signer=signer)
    if signer is None or store is not None:
        raise typer.BadParameter("give INPUT and OUTPUT; or, as a reader, the copy and --signer")
    if options.layout is not None or options.num_shards > 1:
        raise typer.BadParameter("--layout and --num-shards say nothing about a copy that is checked by its signature")
    from monai_salm.publishing import verify_copy

    report, dataset = verify_copy(source, signer, jobs=settings["jobs"], progress=progress)
    data = {"ok": report.ok, "checked": report.checked, "problems": report.problems, "dataset": dataset}
    said = ", ".join(f"{key} {value}" for key, value in dataset.items() if value is not None)
    if report.ok:
        return Outcome(data, [f"{report.checked} files are as their owner signed them: {said}"])
    told = f"{report.checked} files checked, problems{f' ({said})' if said else ''}:"
    return Outcome(data, [told, *briefly(report.problems)], False)


def _verified(
    source: Path,
    output: Path,
    store: NoiseStore,
    options: CopyOptions,
    progress: ProgressCallback,
    signer: Path | None = None,
    skip_left_out: bool = False,
) -> Outcome:
    """Verify, and describe what was found; ``skip_left_out``: the call before has listed them."""
    from monai_salm.publishing import verify as verify_

    report = verify_(source, output, store, signer=signer, progress=progress, **options.read())
    data = {"ok": report.ok, "checked": report.checked, "problems": report.problems, "left_out": report.left_out}
    lines = [f"{report.checked} cases {'checked, problems:' if report.problems else 'verified'}"]
    lines += [*briefly(report.problems), *listed("left out", {} if skip_left_out else report.left_out)]
    return Outcome(data, lines, report.ok)


def _written(report: PublishReport, what: str, options: CopyOptions) -> Outcome:
    data = asdict(report)
    if not report.complete:
        text = f"shard {options.shard_index} of {options.num_shards} done; {report.output} appears when all are"
        return Outcome(data, [text], report.ok)
    lines = [f"{report.images} images {what}, {report.copied} other files copied: {report.output}"]
    lines += [*listed("left out", report.failed), *not_copied(report.not_copied, "not copied")]
    return Outcome(data, [*lines, *(f"Warning: {warning}" for warning in report.warnings)], report.ok)


def _generate(
    source: Path,
    store: Path,
    options: NoiseOptions,
    texts: dict[str, str | None],
    seed: int,
    overwrite: bool,
    progress: ProgressCallback,
    reuse: bool = False,
    key: Path | None = None,
) -> tuple[NoiseStore, dict[str, Any]]:
    """Make the noise, or find it made; ``reuse`` keeps a finished store of the same settings even where overwriting."""
    settings = options.read()
    make_method(options.method, texts)  # wrong settings are reported before the data set is read
    from monai_salm.generate.precompute import precompute
    from monai_salm.layouts import open_layout
    from monai_salm.publishing import noise_statistics, require_outside_copies
    from monai_salm.publishing.copy_records import record_classes
    from monai_salm.store.store import NoiseStoreError

    start = time.perf_counter()
    dataset = open_layout(source, options.layout)
    if inside(store, dataset.root):
        raise ValueError(
            f"the store {store} would lie inside the data set and be published with it; give a place outside"
        )
    require_outside_copies(store)
    replaces = overwrite and store.exists()
    if replaces:
        CopyOptions().opened(store).meta  # noqa: B018 - raises for any other file, which must not be overwritten
    settings |= {"task": dataset.task(), "method": make_method(options.method, texts, dataset), "seed": seed}
    cases = dataset.cases(settings.pop("splits"))

    def make(overwrite: bool) -> NoiseStore:
        return precompute(cases, store, skip_bad=True, overwrite=overwrite, progress=progress, key=key, **settings)

    try:
        noise = make(overwrite and not (reuse and replaces))
    except NoiseStoreError:  # it was not made with the same settings
        if not (reuse and replaces):
            raise
        noise = make(overwrite=True)
    if launch().rank > 0:
        return noise, {}
    data = {
        **noise_statistics(noise),
        "rounds": noise.meta.get("rounds", 0),
        "seconds": round(time.perf_counter() - start, 3),
        "method": noise.meta["method"],
        "skipped": noise.meta.get("skipped", []),
        "task": settings["task"].spec(),
        "classes": record_classes(noise, dataset),
        "window": noise.meta["window"],
        "store": str(noise.path),
        "owner_key": str(noise.key),
    }
    return noise, data


def _described(data: dict[str, Any]) -> list[str]:
    psnr = "infinite" if data["psnr"] is None else f"{data['psnr']:.1f} dB"
    worst, method, task = data["worst"], data["method"], data["task"]
    least = "" if worst is None or worst["psnr"] is None else f" (least: {worst['psnr']:.1f} dB, {worst['name']})"
    perturbation = method.get("perturbation", {}).get("name")
    return [
        *class_lines(data["classes"], task),
        f"Noise of {data['cases']} cases ({task['kind']}, {task['num_classes']} classes): {method['name']}"
        f"{f' ({perturbation})' if perturbation else ''}, on {data['support']:.0%} of the voxels, {data['seconds']:.0f} s",
        f"Window {window_text(data['window'])}; PSNR {psnr}{least}",
    ]
