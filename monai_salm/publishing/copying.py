"""Write the protected copy of a data set, or the original again; nothing is ever passed on unprotected."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from monai_salm._version import __version__
from monai_salm.layouts import TRAIN, FolderLayout, Layout, open_layout
from monai_salm.publishing.changes import Protection, Removal
from monai_salm.publishing.checks import (
    PathLike,
    check_publishable,
    check_restorable,
    renamed_warnings,
    repeated_warnings,
    whole_path,
)
from monai_salm.publishing.companions import Companions, companions, everything
from monai_salm.publishing.folders import in_threads
from monai_salm.publishing.manifest import file_path, manifest_path, read_manifest, write_manifest
from monai_salm.publishing.records import (
    copy_key,
    digests_of,
    own_files,
    record_copy,
    record_of,
    record_restored,
    was_restored,
)
from monai_salm.publishing.searching import find_bare
from monai_salm.publishing.signing import sign_manifest
from monai_salm.publishing.staging import Staging
from monai_salm.publishing.work import PublishReport, Work
from monai_salm.shared.files import file_sha256
from monai_salm.shared.progress import ProgressCallback
from monai_salm.store.records import keep, kept
from monai_salm.store.store import NoiseStore


def publish(
    source: PathLike,
    output: PathLike,
    store: NoiseStore | PathLike,
    *,
    layout: str | None = None,
    splits: Sequence[str] = (TRAIN,),
    copy: Sequence[str] = (),
    overwrite: bool = False,
    jobs: int = 1,
    shard: tuple[int, int] = (0, 1),
    sign_key: PathLike | None = None,
    progress: ProgressCallback | None = None,
) -> PublishReport:
    """Write a protected copy of a data set: the images of some splits carry the store's noise, all else is the same.

    The copy has the same files, names, types and headers, and a public manifest (``publishing.manifest``). It appears under
    its name only when it is whole; what a killed call has written, the same call goes on from. An image that cannot be
    read does not stop the others: it is left out and listed. Of the files that no split lists, those known to be harmless
    are copied (``publishing.companions``), the others are listed. A file that holds a protected image as it was is left out.

    Args:
        source: the original data set.
        output: the copy.
        store: noise of every image of the splits.
        layout: a name of ``layouts.LAYOUTS``; None finds it out.
        splits: whose images are protected.
        copy: patterns of paths or names, as at a shell; files beside the images that fit one are copied, whatever they are.
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
    noises, target = store if isinstance(store, NoiseStore) else NoiseStore(store), whole_path(output)
    Staging(target).remove_finished()
    data = open_layout(source, layout)
    report = progress or (lambda _: None)
    others = companions(data, splits, copy) if isinstance(data, FolderLayout) else Companions()
    work = Work(data, target, splits, splits, "publish", jobs, shard, overwrite, report, others=others)
    asked = {
        "verb": "publish",
        "version": __version__,
        "noise": _identity(noises),
        "sign": str(sign_key),
        "copy": [*copy],
    }
    job = hashlib.sha256(json.dumps(work.identity(asked), sort_keys=True).encode()).hexdigest()
    done = record_of(noises, manifest_path(data, target), job) if shard[1] > 1 and target.exists() else None
    if done is not None:  # a repeated part of what is finished
        return work.outcome(done["failed"], [], complete=True)
    check_publishable(data, target, noises.path, splits=splits, copy=copy, overwrite=overwrite, sign_key=sign_key)
    warnings = [] if shard[0] or isinstance(data, FolderLayout) else repeated_warnings(data, noises, splits)
    replaced = data.rewritten_files(splits) if isinstance(data, FolderLayout) else {}
    if isinstance(data, FolderLayout) and not shard[0]:
        warnings += [*renamed_warnings(data.renamed(splits), replaced), *data.rewritten_notes(splits)]

    def finish(staging: Staging, failed: dict[str, str]) -> list[str]:
        if isinstance(data, FolderLayout):
            failed |= _remove_bare(data, splits, others, staging, jobs)
        for file in replaced:
            keep(noises, {copy_key(staging.copy, [file]): (data.root / file).read_bytes()})
        files = work.image_files(failed)
        places = [file_path(data, file, staging.copy) for file in files]
        path = manifest_path(data, staging.copy)
        write_manifest(
            path, dict(zip(files, in_threads(file_sha256, places, jobs), strict=True)), noises, splits, data.called
        )
        if sign_key is not None:
            sign_manifest(path, Path(sign_key))
        record_copy(noises, data, target, staging.copy, splits, failed, job, jobs)
        return []

    return work.run(work.identity(asked), Protection(noises), replaced, finish, warnings)


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
    noises, target = store if isinstance(store, NoiseStore) else NoiseStore(store), whole_path(restored)
    Staging(target).remove_finished()
    data = open_layout(protected, layout)
    report = progress or (lambda _: None)
    splits = [split for split in read_manifest(data).get("splits", [TRAIN]) if split in data.splits]
    work = Work(data, target, splits, data.splits, "restore", jobs, shard, overwrite, report)
    if shard[1] > 1 and target.exists() and was_restored(noises, target):
        return work.outcome({}, [], complete=True)
    check_restorable(data, target, noises, overwrite)
    record = record_of(noises, manifest_path(data))
    never = {} if record is None else {record["renamed"].get(name, name): why for name, why in record["failed"].items()}
    never = {name: why for name, why in never.items() if _is_absent(data, name)}
    own, replaced = _originals(data, noises)
    others = everything(data, own) if isinstance(data, FolderLayout) else Companions()
    work = replace(work, absent=frozenset(never), others=others)

    def finish(staging: Staging, failed: dict[str, str]) -> list[str]:
        _remove_manifest_folder(data, staging, record)
        record_restored(noises, target, staging.copy)
        return [
            *(f"{name}: was never published: {why}" for name, why in never.items()),
            *_unvouched(data, record, jobs),
        ]

    asked = {"verb": "restore", "version": __version__, "noise": _identity(noises)}
    removal = Removal(noises, frozenset(work.names()))
    return work.run(work.identity(asked), removal, replaced, finish, [])


def _is_absent(data: Layout, name: str) -> bool:
    """Whether no file of an image is there."""
    if not isinstance(data, FolderLayout):
        return False
    files = [file for unit in data.units(data.splits) if unit.name == name for file in unit.files]
    return not any((data.root / file).exists() for file in files)


def _remove_bare(
    data: FolderLayout, splits: Sequence[str], others: Companions, staging: Staging, jobs: int
) -> dict[str, str]:
    """Take out of a copy what shows an image that was to be protected; the names, with the reasons."""
    found = find_bare(data, splits, others.copied, staging.copy, jobs)
    owners = {file: unit for unit in data.units(data.splits) for file in unit.files}
    removed = {}
    for file, reason in found.items():
        unit = owners.get(file)
        removed[unit.name if unit else file] = f"{file} {reason}" if unit else reason
        for part in unit.files if unit else (file,):
            (staging.copy / part).unlink(missing_ok=True)
    return removed


def _originals(data: Layout, store: NoiseStore) -> tuple[tuple[str, ...], dict[str, bytes]]:
    """What a copy has and its original had not, and what other files, not images, were before they were published."""
    if not isinstance(data, FolderLayout):
        return (), {}
    own, found = own_files(data), {}
    images = set(data.image_files(data.splits))
    for file in data.all_files():
        if file not in images and file not in own:
            original = kept(store, copy_key(data.root, [file]))
            if original is not None:
                found[file] = original
    return own, found


def _unvouched(data: Layout, record: Mapping[str, Any] | None, jobs: int) -> list[str]:
    """What was taken over from a copy and is not what its owner published, a warning each."""
    if record is None:
        return [
            "protected images are the exact originals; other files were taken over as they are, unchecked, for this store has no "
            "record of the copy. A store that was encrypted for a partner goes without it; otherwise the manifest was changed"
        ]
    if not isinstance(data, FolderLayout):
        return []
    found, images = digests_of(data.root, jobs, own_files(data)), set(data.image_files(record["splits"]))
    names = sorted(file for file in found if file not in images and record["files"].get(file) != found[file])
    missing = sorted(set(record["files"]) - set(found))
    return [f"{file}: is not as it was published" for file in names] + [f"{file}: is missing" for file in missing]


def _remove_manifest_folder(data: Layout, staging: Staging, record: Mapping[str, Any] | None) -> None:
    """A folder that was made for the manifest alone goes with it."""
    if not isinstance(data, FolderLayout):
        return
    name = Path(data.manifest).parent.as_posix()
    folder = staging.copy / name
    if name == "." or not folder.is_dir() or any(folder.iterdir()):
        return
    if record is None or name not in record["folders"]:
        folder.rmdir()


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
    for row in store.rows("SELECT checksum FROM noise ORDER BY checksum"):
        digest.update(row[0])
    return digest.hexdigest()
