"""Write the protected copy of a data set, or the original again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from monai_salm._version import __version__
from monai_salm.layouts import TRAIN, Layout, open_layout
from monai_salm.layouts.files import is_file
from monai_salm.publishing.copy_job import CopyJob, PublishReport, PublishSettings
from monai_salm.publishing.copy_records import copy_key, record_copy, record_of, record_restored, was_restored
from monai_salm.publishing.image_changes import Protection, Removal
from monai_salm.publishing.manifest import PathLike, digests_of, own_files, read_manifest, write_manifest
from monai_salm.publishing.other_files import OtherFiles, all_other_files, other_files
from monai_salm.publishing.preconditions import (
    check_publishable,
    check_restorable,
    renamed_warnings,
    repeated_warnings,
    whole_path,
)
from monai_salm.publishing.searching import find_unprotected
from monai_salm.publishing.signing import sign_manifest
from monai_salm.publishing.staging import Staging
from monai_salm.shared.disk import make_private
from monai_salm.shared.files import file_sha256
from monai_salm.shared.progress import Progress, ProgressCallback
from monai_salm.store.records import keep, kept
from monai_salm.store.seal import SealState, require_owner, seal_state
from monai_salm.store.store import NoiseStore, NoiseStoreError


def publish(
    source: PathLike,
    output: PathLike,
    store: NoiseStore | PathLike,
    *,
    layout: str | None = None,
    progress: ProgressCallback | None = None,
    **settings: Any,
) -> PublishReport:
    """Write a protected copy of a data set: the images of some splits carry the store's noise, all else is the same.

    The copy has the same files, names, types and headers, and a public manifest. It appears under its name only when it is
    whole. A call that was killed goes on when it is made again. An image that cannot be read is left out and listed. Of the
    files that no split lists, those known to be harmless are copied; the others are listed. A file that holds an image as it
    was before protection is left out.

    Args:
        source: the original data set.
        output: the copy.
        store: noise of every image of the splits.
        layout: a name of ``layouts.LAYOUTS``; None finds it out.
        progress: called with a ``Progress`` for every file.
        settings: fields of ``PublishSettings``: ``splits=("train",)`` whose images are protected; ``copy=()`` patterns of
            files beside the images that are copied in any case; ``overwrite=False``; ``jobs=1`` threads; ``shard=(0, 1)`` index
            and number of the calls that share the work; ``sign_key=None`` file of a private key to sign the manifest with;
            ``dataset_version=None`` text, the version of the data set in the manifest.

    Raises:
        TypeError: for one text as ``splits`` or ``copy``.
        PublishError: if an image is not in the store, or the places of input, output and store are not safe.
        FileExistsError: if the output exists and is not to be overwritten.
        StagingBusyError: if another process is writing the same output.
        LayoutError, FormatError, NoiseStoreError, OSError: for what cannot be read or written.
    """
    wanted = PublishSettings(**settings)
    noises, target = as_store(store), whole_path(output)
    noises.settings  # noqa: B018 - raises for what is no store, or an incomplete one
    require_owner(noises)
    Staging(target).remove_finished()
    data, splits, copy = open_layout(source, layout), wanted.splits, wanted.copy
    others = other_files(data, splits, copy)
    work = CopyJob("publish", data, target, splits, splits, Protection(noises), wanted, progress or _silent, others)
    asked = {"sign": str(wanted.sign_key), "copy": [*copy], "dataset": wanted.dataset_version}
    identity = work.identity(version=__version__, noise=_identity(noises), **asked)
    job = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    done = record_of(noises, data.manifest_path(target), job) if wanted.shard[1] > 1 and target.exists() else None
    if done is not None:  # a repeated part of what is finished
        return work.outcome(done["failed"], [], complete=True)
    safe = {"overwrite": wanted.overwrite, "sign_key": wanted.sign_key}
    check_publishable(data, target, noises.path, splits=splits, copy=copy, **safe)  # type: ignore[arg-type]
    work = replace(work, replaced=data.rewritten_files(splits))
    warnings = [] if wanted.shard[0] else _warnings(work, noises)
    return work.run(identity, lambda staging, failed: _finish(work, noises, job, staging, failed), warnings)


def _warnings(work: CopyJob, store: NoiseStore) -> list[str]:
    """Warnings for the owner. In a folder, files that hold protected images are left out; in one file they stay."""
    data, splits = work.data, work.splits
    repeated = repeated_warnings(data, store, splits) if data.single_file else []
    renamed = renamed_warnings(data.renamed(splits), work.replaced)
    return [*repeated, *renamed, *data.rewritten_notes(splits)]


def _finish(work: CopyJob, store: NoiseStore, job: str, staging: Staging, failed: dict[str, str]) -> list[str]:
    """Search the copy for originals, keep the texts that it lacks, and write its manifest and record."""
    data, splits, jobs = work.data, work.splits, work.settings.jobs
    failed |= _remove_unprotected(data, splits, work.others, staging, jobs)
    for file in work.replaced.keys() & {*work.others.copied, *data.image_files(data.splits)}:
        keep(store, {copy_key(staging.copy, [file]): (data.root / file).read_bytes()})
    # A single file is known by the name that it has in its place.
    digests = digests_of(staging.copy, jobs, own_files(data))
    images = data.published_files(splits, work.target, failed)
    dataset = {"name": work.target.name, "version": work.settings.dataset_version, "date": staging.date()}
    manifest = write_manifest(data, staging.copy, images, digests, store, splits, dataset)
    if work.settings.sign_key is not None:
        sign_manifest(manifest, Path(work.settings.sign_key))
    record_copy(store, data, work.target, staging.copy, {"splits": list(splits), "job": job}, failed, digests)
    return []


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
    """Take the noise off a protected copy again: the original images bit for bit, without the manifest. Only the owner can read them.

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
    settings = PublishSettings(overwrite=overwrite, jobs=jobs, shard=shard)
    noises, target = as_store(store), whole_path(restored)
    require_owner(noises)
    if not len(noises):
        raise NoiseStoreError(
            f"{noises.path} holds no noise, so it restores nothing; give the store that protected the copy"
        )
    Staging(target).remove_finished()
    data = open_layout(protected, layout)
    manifest = read_manifest(data)
    splits = [split for split in manifest.get("splits", [TRAIN]) if split in data.splits]
    removal = Removal(noises, frozenset())
    work = CopyJob("restore", data, target, splits, data.splits, removal, settings, progress or _silent, OtherFiles())
    if shard[1] > 1 and target.exists() and was_restored(noises, target):
        return work.outcome({}, [], complete=True)
    check_restorable(data, target, noises, overwrite)
    record = record_of(noises, data.manifest_path())
    never = _never_published(data, record, manifest)
    others, texts = all_other_files(data, own_files(data)), _original_texts(data, noises)
    removal = Removal(noises, frozenset(work.names()) - frozenset(never), manifest.get("files", {}))
    work = replace(work, change=removal, absent=frozenset(never), others=others, replaced=texts)

    def finish(staging: Staging, failed: dict[str, str]) -> list[str]:
        lost = _missing(data, manifest, failed)
        failed |= lost
        _remove_manifest_folder(data, staging, record)
        make_private(staging.copy)
        record_restored(noises, target, staging.copy)
        return [*_told(never, lost), *_unproved(noises), *_unvouched(data, record, jobs)]

    return work.run(work.identity(version=__version__, noise=_identity(noises)), finish, [])


def _told(never: Mapping[str, str], lost: Mapping[str, str]) -> list[str]:
    """What to say of images that were never published; a table may name a lost image without its folders, or its suffix."""
    known = {end for file in lost for end in (file, PurePosixPath(file).name, PurePosixPath(file).stem)}
    return [f"{name}: was never published: {why}" for name, why in never.items() if name not in known]


def as_store(store: NoiseStore | PathLike) -> NoiseStore:
    """A store, opened if it is a path."""
    return store if isinstance(store, NoiseStore) else NoiseStore(store)


def _silent(_: Progress) -> None:
    """No progress is shown."""


def _never_published(data: Layout, record: Mapping[str, Any] | None, manifest: Mapping[str, Any]) -> dict[str, str]:
    """The images and files that the copy was made without and still lacks, with the reasons."""
    if data.single_file:
        return {}
    files = {stored.name: stored.files for stored in data.stored_images(data.splits)}
    published = {*manifest.get("files", {}), *manifest.get("other_files", {})}
    names = {name: "its files are not in the manifest" for name, own in files.items() if not published & {*own}}
    if record is not None:
        names |= {record["renamed"].get(name, name): why for name, why in record["failed"].items()}
    return {
        name: why for name, why in names.items() if not any((data.root / file).exists() for file in files.get(name, ()))
    }


def _missing(data: Layout, manifest: Mapping[str, Any], failed: Mapping[str, str]) -> dict[str, str]:
    """The files of protected images that the copy has lost, beside those of images that failed, with the reason."""
    if data.single_file:
        return {}
    told = {file for stored in data.stored_images(data.splits) if stored.name in failed for file in stored.files}
    lost = (file for file in manifest.get("files", {}) if not is_file(data.root / file))
    return {file: "it is missing from the copy, and was published" for file in lost if file not in {*told, *failed}}


def _remove_unprotected(
    data: Layout, splits: Sequence[str], others: OtherFiles, staging: Staging, jobs: int
) -> dict[str, str]:
    """Take out of a copy what shows an image that was to be protected; the names, with the reasons."""
    owners = {file: stored for stored in data.stored_images(data.splits) for file in stored.files}
    removed = {}
    for file, reason in find_unprotected(data, splits, others.copied, staging.copy, jobs).items():
        stored = owners.get(file)
        removed[stored.name if stored else file] = f"{file} {reason}" if stored else reason
        for part in stored.files if stored else (file,):
            (staging.copy / part).unlink(missing_ok=True)
    return removed


def _original_texts(data: Layout, store: NoiseStore) -> dict[str, bytes]:
    """The original content of the files of a copy, not images, that were rewritten."""
    others = set(data.all_files()) - set(data.image_files(data.splits)) - set(own_files(data))
    found = ((file, kept(store, copy_key(data.root, [file]))) for file in sorted(others))
    return {file: original for file, original in found if original is not None}


def _unproved(store: NoiseStore) -> list[str]:
    """A warning that nothing shows the restored images to be the originals."""
    if not store.unsigned or seal_state(store) is SealState.PROVED:
        return []
    return [
        f"nothing proves that these are the originals: {store.path} is used unsigned, so its author decides which images are restored"
    ]


def _unvouched(data: Layout, record: Mapping[str, Any] | None, jobs: int) -> list[str]:
    """A warning for each file of a copy that is not as its owner published it."""
    if record is None:
        return [
            "protected images were checked by the store; other files were taken over as they are, unchecked, for this store has no "
            "record of the copy. A store that was encrypted for a partner goes without it; otherwise the manifest was changed"
        ]
    if data.single_file:
        known = file_sha256(data.root) in record["files"].values()
        return (
            []
            if known
            else [f"{data.root.name}: is not as it was published, what is in it beside protected images is unchecked"]
        )
    found, images = digests_of(data.root, jobs, own_files(data)), set(data.image_files(record["splits"]))
    names = sorted(file for file in found if file not in images and record["files"].get(file) != found[file])
    missing = sorted(set(record["files"]) - set(found) - set(read_manifest(data)["files"]))
    return [f"{file}: is not as it was published" for file in names] + [f"{file}: is missing" for file in missing]


def _remove_manifest_folder(data: Layout, staging: Staging, record: Mapping[str, Any] | None) -> None:
    """A folder that was made for the manifest alone goes with it."""
    name = Path(data.manifest).parent.as_posix()
    folder = staging.copy / name
    known = record is not None and name in record["folders"]
    if name != "." and folder.is_dir() and not any(folder.iterdir()) and not known:
        folder.rmdir()


def _identity(store: NoiseStore) -> str:
    """Tells one store's noise from another's."""
    digest = hashlib.sha256(repr(store.meta).encode())
    for row in store.rows("SELECT checksum FROM noise ORDER BY checksum"):
        digest.update(row[0])
    return digest.hexdigest()
