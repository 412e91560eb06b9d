"""The owner's record of published copies, in the store: which copy, from where, and the digest of every file in it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from monai_salm.layouts import FolderLayout, Layout
from monai_salm.publishing.folders import in_threads
from monai_salm.publishing.manifest import manifest_path, signature_path
from monai_salm.shared.files import file_sha256
from monai_salm.store.records import add_record, records
from monai_salm.store.store import NoiseStore, NoiseStoreError


def copy_key(root: Path, files: Sequence[str]) -> str:
    """What the store keeps the original's header of a published image under: the digest of its published files."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(bytes.fromhex(file_sha256(root / file)))
    return digest.hexdigest()


def digests_of(root: Path, jobs: int, without: Sequence[str] = ()) -> dict[str, str]:
    """SHA-256 of every file under a folder, or of a single file under its name.

    Args:
        root: the folder or file.
        jobs: threads.
        without: files to leave out, relative to the root.
    """
    if root.is_file():
        return {root.name: file_sha256(root)}
    found = [Path(folder, name) for folder, _, names in os.walk(root) for name in names]
    files = sorted({path.relative_to(root).as_posix() for path in found} - set(without))
    return dict(zip(files, in_threads(file_sha256, [root / file for file in files], jobs), strict=True))


def own_files(data: Layout) -> tuple[str, ...]:
    """What a copy has and its original has not, relative to the copy: the manifest and its signature."""
    if not isinstance(data, FolderLayout):
        return ()
    return (data.manifest, signature_path(Path(data.manifest)).as_posix())


def record_copy(
    store: NoiseStore,
    data: Layout,
    target: Path,
    root: Path,
    splits: Sequence[str],
    failed: Mapping[str, str],
    job: str,
    jobs: int,
) -> None:
    """Write down a finished copy.

    Args:
        store: the noise in it.
        data: the original data set.
        target: where the copy will stand.
        root: where it stands now.
        splits: whose images are protected.
        failed: what was left out, with the reasons.
        job: digest of what was asked for.
        jobs: threads.
    """
    place = manifest_path(data, root)
    signature = signature_path(place)
    record = {
        "kind": "publish",
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "source": str(data.root.resolve()),
        "output": str(target.resolve()),
        "layout": data.name,
        "splits": list(splits),
        "manifest": place.read_text("utf-8"),
        "signature": signature.read_text("ascii") if signature.is_file() else None,
        "files": digests_of(root, jobs, own_files(data)),
        "folders": list(data.folders()) if isinstance(data, FolderLayout) else [],
        "failed": dict(failed),
        "renamed": data.renamed(splits) if isinstance(data, FolderLayout) else {},
        "job": job,
    }
    add_record(store, record)


def record_restored(store: NoiseStore, target: Path, root: Path) -> None:
    """Write down a restored copy, so that it may be overwritten; a store that cannot be written to goes without."""
    try:
        add_record(store, {"kind": "restore", "output": str(target.resolve()), "files": _stamps(root)})
    except NoiseStoreError:
        return


def was_restored(store: NoiseStore, target: Path) -> bool:
    """Whether what stands at a place is what ``restore`` wrote there, unchanged since."""
    return {"kind": "restore", "output": str(target.resolve()), "files": _stamps(target)} in records(store)


def _stamps(root: Path) -> str:
    """Tells files from others by their names, sizes and times, which a new name of their folder does not change."""
    files = [root] if root.is_file() else sorted(path for path in root.rglob("*") if not path.is_dir())
    digest = hashlib.sha256()
    for path in files:
        found, name = path.lstat(), "" if path == root else path.relative_to(root).as_posix()
        digest.update(f"\0{name}\0{found.st_size}\0{found.st_mtime_ns}".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def record_classes(store: NoiseStore, data: Layout) -> dict[str, dict[str, int]]:
    """Write down the classes of a data set, for ``info``; a store that cannot be written to goes without.

    Returns:
        How many images of each split have each class.
    """
    classes = data.classes()
    record = {"kind": "classes", "classes": classes}
    with suppress(NoiseStoreError):
        if record not in records(store):
            add_record(store, record)
    return classes


def classes_of(store: NoiseStore) -> dict[str, dict[str, int]]:
    """How many images of each split have each class, as ``record_classes`` wrote it down; empty if it did not."""
    found = (record["classes"] for record in reversed(records(store)) if record.get("kind") == "classes")
    return next(found, {})


def record_of(store: NoiseStore, manifest: Path, job: str | None = None) -> dict[str, Any] | None:
    """The record of a copy, found by the text of its manifest; None if the store has none.

    Args:
        store: the store.
        manifest: of the copy.
        job: take only a record of this job.
    """
    if not manifest.is_file():
        return None
    text = manifest.read_bytes()
    found: dict[str, Any]
    for found in reversed(published(store)):
        if found["manifest"].encode() == text and job in (None, found["job"]):
            return found
    return None


def published(store: NoiseStore) -> list[dict[str, Any]]:
    """The records of published copies, oldest first."""
    return [record for record in records(store) if record.get("kind") == "publish"]


def record_problems(data: Layout, root: Path, store: NoiseStore) -> Iterator[str]:
    """What a copy's manifest and signature are not as they were written, one line each.

    Args:
        data: the original data set.
        root: the copy.
        store: the noise; one without records, copied before anything was published, says nothing.
    """
    place = manifest_path(data, root)
    if not published(store) or not place.is_file():
        return
    text = place.read_bytes()
    written = [record["signature"] for record in published(store) if record["manifest"].encode() == text]
    if not written:
        yield f"{place.name}: is not a manifest that was published with this store; publish again"
        return
    signature = signature_path(place)
    found = signature.read_text("ascii", "replace") if signature.is_file() else None
    if found not in written:  # the same manifest may have been published signed and unsigned
        yield f"{signature.name}: {'missing' if found is None else 'is not the signature that was published'}"
