"""Write the protected copy of a data set, or the original again; nothing is ever passed on unprotected."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from monai_salm._files import file_sha256
from monai_salm._version import __version__
from monai_salm.layouts import TRAIN, FolderLayout, open_layout
from monai_salm.progress import ProgressCallback
from monai_salm.publish.changes import Protection, Removal
from monai_salm.publish.checks import (
    PathLike,
    check_places,
    check_publishable,
    repeated_warnings,
    unlisted_warnings,
)
from monai_salm.publish.folders import in_threads
from monai_salm.publish.manifest import file_path, manifest_path, read_manifest, signature_path, write_manifest
from monai_salm.publish.signing import sign_manifest
from monai_salm.publish.staging import Staging
from monai_salm.publish.work import PublishReport, Work
from monai_salm.store import NoiseStore
from monai_salm.store_records import add_record, kept


def publish(
    source: PathLike,
    output: PathLike,
    store: NoiseStore | PathLike,
    *,
    layout: str | None = None,
    splits: Sequence[str] = (TRAIN,),
    overwrite: bool = False,
    jobs: int = 1,
    shard: tuple[int, int] = (0, 1),
    sign_key: PathLike | None = None,
    progress: ProgressCallback | None = None,
) -> PublishReport:
    """Write a protected copy of a data set: the images of some splits carry the store's noise, all else is the same.

    The copy has the same files, names, types and headers, and a public manifest (``publish.manifest``). It appears under
    its name only when it is whole; what a killed call has written, the same call goes on from. An image that cannot be
    read does not stop the others: it is left out and listed.

    Args:
        source: the original data set.
        output: the copy.
        store: noise of every image of the splits.
        layout: a name of ``layouts.LAYOUTS``; None finds it out.
        splits: whose images are protected.
        overwrite: replace an earlier copy.
        jobs: threads.
        shard: index and number of calls, on any machines that share the disk, that do the work together.
        sign_key: file of an Ed25519 private key (PEM) to sign the manifest with.
        progress: called with a ``Progress`` for every file.

    Raises:
        PublishError: if an image is not in the store, or the places of input, output and store are not safe.
        FileExistsError: if the output exists and is not to be overwritten.
        StagingBusyError: if another process is writing the same output.
        LayoutError, FormatError, NoiseStoreError, OSError: for what cannot be read or written.
    """
    _check_work(jobs, shard)
    noises = store if isinstance(store, NoiseStore) else NoiseStore(store)
    data = check_publishable(source, output, noises.path, layout=layout, splits=splits, overwrite=overwrite)
    warnings = [] if shard[0] else [*unlisted_warnings(data, noises), *repeated_warnings(data, noises, splits)]
    protection = Protection(noises)
    work = Work(data, Path(output), splits, "publish", jobs, shard, progress or (lambda _: None))

    def finish(staging: Staging, failed: Mapping[str, str]) -> None:
        missing = {file for unit in work.units() if unit.name in failed for file in unit.files}
        files = [file for file in work.image_files() if file not in missing]
        places = [file_path(data, file, staging.copy) for file in files]
        digests = dict(zip(files, in_threads(file_sha256, places, jobs), strict=True))
        path = manifest_path(data, staging.copy)
        write_manifest(path, digests, noises, splits)
        if sign_key is not None:
            sign_manifest(path, Path(sign_key))
        add_record(noises, _record(work, path, failed))

    job = {"verb": "publish", "version": __version__, "noise": _identity(noises), "sign": str(sign_key)}
    replaced = data.rewritten_files(splits) if isinstance(data, FolderLayout) else {}
    return work.run(job, protection, {**replaced}, finish, warnings)


def restore(
    protected: PathLike,
    restored: PathLike,
    store: NoiseStore | PathLike,
    *,
    layout: str | None = None,
    overwrite: bool = False,
    jobs: int = 1,
    shard: tuple[int, int] = (0, 1),
    progress: ProgressCallback | None = None,
) -> PublishReport:
    """Take the noise off a protected copy again: the original images bit for bit, without the manifest.

    Compressed files may be packed otherwise than the originals were; what is in them is the same.

    Args:
        protected: what ``publish`` wrote.
        restored: the new copy.
        store: the noise that was put in.
        layout: a name of ``layouts.LAYOUTS``; None finds it out.
        overwrite: replace an earlier restored copy.
        jobs: threads.
        shard: as for ``publish``.
        progress: called with a ``Progress`` for every file.

    Raises:
        PublishError: if an image is not one that this store protected, or a place is not safe.
        FileExistsError, StagingBusyError, LayoutError, FormatError, NoiseStoreError, OSError: as for ``publish``.
    """
    _check_work(jobs, shard)
    noises = store if isinstance(store, NoiseStore) else NoiseStore(store)
    data = open_layout(protected, layout)
    check_places(data, Path(restored), noises.path, overwrite)
    splits = read_manifest(data).get("splits", [TRAIN])
    work = Work(data, Path(restored), splits, "restore", jobs, shard, progress or (lambda _: None))
    replaced: dict[str, bytes | None] = {}
    if isinstance(data, FolderLayout):
        for place in (data.manifest, signature_path(Path(data.manifest)).as_posix()):
            replaced[place] = None
        originals = {file: kept(noises, f"file:{file}") for file in data.all_files()}
        replaced.update({file: content for file, content in originals.items() if content is not None})
    job = {"verb": "restore", "version": __version__, "noise": _identity(noises)}
    return work.run(job, Removal(noises), replaced, None, [])


def _check_work(jobs: int, shard: tuple[int, int]) -> None:
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}")
    if not 0 <= shard[0] < shard[1]:
        raise ValueError(
            f"the shard's index must be from 0 to one less than their number, got {shard[0]} of {shard[1]}"
        )


def _identity(store: NoiseStore) -> str:
    """Tells one store's noise from another's."""
    digest = hashlib.sha256(repr(store.meta).encode())
    for row in store.rows("SELECT checksum FROM noise ORDER BY digest"):
        digest.update(row[0])
    return digest.hexdigest()


def _record(work: Work, manifest: Path, failed: Mapping[str, str]) -> dict[str, Any]:
    """What the owner can look up later: which copy this is."""
    return {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "source": str(work.data.root.resolve()),
        "output": str(work.target.resolve()),
        "layout": work.data.name,
        "splits": list(work.splits),
        "manifest": manifest.read_text("utf-8"),
        "failed": dict(failed),
    }
