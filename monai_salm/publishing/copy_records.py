"""The owner's record of published copies, in the store: which copy, from where, and the digest of every file in it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from monai_salm.layouts import Layout
from monai_salm.publishing.signing import signature_path
from monai_salm.shared.files import file_sha256
from monai_salm.store.records import add_record, records
from monai_salm.store.seal import may_write
from monai_salm.store.store import NoiseStore, NoiseStoreError


def copy_key(root: Path, files: Sequence[str]) -> str:
    """The key under which the store keeps the original's header of a published image: the digest of its published files."""
    return key_of_digests(file_sha256(root / file) for file in files)


def key_of_digests(digests: Iterable[str]) -> str:
    """``copy_key`` of files of which the SHA-256 is known."""
    return hashlib.sha256(b"".join(map(bytes.fromhex, digests))).hexdigest()


def header_key(published: bytes, frame: bytes) -> str:
    """The key under which the store keeps that an original had this header: by the digest of its published voxels and its frame."""
    return f"header {published.hex()} {hashlib.sha256(frame).hexdigest()[:32]}"


def record_copy(
    store: NoiseStore,
    data: Layout,
    target: Path,
    root: Path,
    asked: Mapping[str, Any],
    failed: Mapping[str, str],
    files: Mapping[str, str],
) -> None:
    """Write down a finished copy, which is at ``root`` and will stand at ``target``, and what was left out of it.

    ``asked`` are the protected ``splits``, and ``job``, the digest of what was asked for. ``files`` has the SHA-256
    of every file.
    """
    place = data.manifest_path(root)
    signature = signature_path(place)
    record = {
        "kind": "publish",
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "source": str(data.root.resolve()),
        "output": str(target.resolve()),
        "layout": data.name,
        "manifest": place.read_text("utf-8"),
        "signature": signature.read_text("ascii") if signature.is_file() else None,
        "files": dict(files),
        "folders": list(data.folders()),
        "failed": dict(failed),
        "renamed": data.renamed(asked["splits"]),
        **asked,
    }
    add_record(store, record)


def record_restored(store: NoiseStore, target: Path, root: Path) -> None:
    """Write down a restored copy, so that it may be overwritten; a store that cannot be written to goes without."""
    with suppress(NoiseStoreError):
        if may_write(store):
            add_record(store, _restored(target, root))


def was_restored(store: NoiseStore, target: Path) -> bool:
    """Whether a place holds the files that ``restore`` wrote there, unchanged."""
    return _restored(target, target) in records(store)


def _restored(target: Path, root: Path) -> dict[str, str]:
    """A restored copy by the names, sizes and times of its files, which a new name of their folder does not change."""
    files = [root] if root.is_file() else sorted(path for path in root.rglob("*") if not path.is_dir())
    digest = hashlib.sha256()
    for path in files:
        found, name = path.lstat(), "" if path == root else path.relative_to(root).as_posix()
        digest.update(f"\0{name}\0{found.st_size}\0{found.st_mtime_ns}".encode("utf-8", "surrogatepass"))
    return {"kind": "restore", "output": str(target.resolve()), "files": digest.hexdigest()}


def record_classes(store: NoiseStore, data: Layout) -> dict[str, dict[str, int]]:
    """Write down how many images of each split have each class, for ``info``, and return it."""
    classes = data.classes()
    record = {"kind": "classes", "classes": classes}
    with suppress(NoiseStoreError):  # a store that cannot be written to goes without
        if record not in records(store):
            add_record(store, record)
    return classes


def classes_of(store: NoiseStore) -> dict[str, dict[str, int]]:
    """How many images of each split have each class, as ``record_classes`` wrote it down; empty if it did not."""
    found = (record["classes"] for record in reversed(records(store)) if record.get("kind") == "classes")
    return next(found, {})


def record_of(store: NoiseStore, manifest: Path, job: str | None = None) -> dict[str, Any] | None:
    """The latest record of a copy, found by the text of its manifest, and of a job if one is named; None if there is none."""
    found = reversed(_records_of(store, manifest))
    return next((record for record in found if job in (None, record["job"])), None)


def record_problems(data: Layout, root: Path, store: NoiseStore) -> Iterator[str]:
    """The changes of the manifest and the signature of a copy at ``root`` since they were written, one line each.

    A store without records, copied before anything was published, says nothing.
    """
    place = data.manifest_path(root)
    if not any(record.get("kind") == "publish" for record in records(store)) or not place.is_file():
        return
    written = [record["signature"] for record in _records_of(store, place)]
    if not written:
        yield f"{place.name}: is not a manifest that was published with this store; publish again"
        return
    signature = signature_path(place)
    found = signature.read_text("ascii", "replace") if signature.is_file() else None
    if found not in written:  # the same manifest may have been published signed and unsigned
        yield f"{signature.name}: {'missing' if found is None else 'is not the signature that was published'}"


def _records_of(store: NoiseStore, manifest: Path) -> list[dict[str, Any]]:
    """The records of the copies with the text of a manifest, oldest first."""
    text = manifest.read_bytes() if manifest.is_file() else None
    published = (record for record in records(store) if record.get("kind") == "publish")
    return [record for record in published if record["manifest"].encode() == text]
