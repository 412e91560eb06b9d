"""Write the protected copy of a data set, or the original again; nothing is ever passed on unprotected."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from monai_salm._files import staging_folder, sync_folder
from monai_salm.digest import content_digest
from monai_salm.formats.base import Array
from monai_salm.layouts import Edit, Layout, open_layout
from monai_salm.progress import Progress, ProgressCallback
from monai_salm.publish.checks import (
    PathLike,
    PublishError,
    check_places,
    check_publishable,
    repeated_warnings,
    unlisted_warnings,
)
from monai_salm.publish.manifest import FOLDER_MANIFEST, manifest_path, write_manifest
from monai_salm.store import Noise, NoiseStore


@dataclass(frozen=True)
class PublishReport:
    """What ``publish`` or ``restore`` wrote.

    Args:
        output: the new folder or file.
        images: images that were changed.
        copied: files that were copied as they are.
        manifest: the public manifest; None for a restored copy.
        warnings: what the owner should look at.
    """

    output: Path
    images: int
    copied: int
    manifest: Path | None
    warnings: list[str] = field(default_factory=list)


def publish(
    source: PathLike,
    output: PathLike,
    store: NoiseStore | PathLike,
    *,
    layout: str | None = None,
    overwrite: bool = False,
    progress: ProgressCallback | None = None,
) -> PublishReport:
    """Write a protected copy of a data set: its training images carry the store's noise, all else is the same.

    The copy has the same files, names, types and headers, and a public manifest (``publish.manifest``). It appears under
    its name only when it is whole.

    Args:
        source: the original data set.
        output: the copy.
        store: noise of every training image.
        layout: a name of ``layouts.LAYOUTS``; None finds it out.
        overwrite: replace an earlier copy.
        progress: called with a ``Progress`` for every image.

    Raises:
        PublishError: if an image is not in the store, or the places of input, output and store are not safe.
        FileExistsError: if the output exists and is not to be overwritten.
        LayoutError, FormatError, NoiseStoreError, OSError: for what cannot be read or written.
    """
    noises = store if isinstance(store, NoiseStore) else NoiseStore(store)
    data, target = check_publishable(source, output, noises.path, layout=layout, overwrite=overwrite), Path(output)
    warnings = [*unlisted_warnings(data, noises), *repeated_warnings(data, noises)]

    def protect(name: str, image: Array) -> Array:
        return _with_noise(noises, name, image)

    count, manifest = _copy(data, target, protect, noises, progress, "publish")
    return PublishReport(target, count, len(data.all_files()) - len(data.image_files()), manifest, warnings)


def restore(
    protected: PathLike,
    restored: PathLike,
    store: NoiseStore | PathLike,
    *,
    layout: str | None = None,
    overwrite: bool = False,
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
        progress: called with a ``Progress`` for every image.

    Raises:
        PublishError: if an image is not one that this store protected, or a place is not safe.
        FileExistsError, LayoutError, FormatError, NoiseStoreError, OSError: as for ``publish``.
    """
    noises = store if isinstance(store, NoiseStore) else NoiseStore(store)
    data, target = open_layout(protected, layout), Path(restored)
    check_places(data, target, noises.path, overwrite)

    def take_off(name: str, image: Array) -> Array:
        return _without_noise(noises, name, image)

    count, _ = _copy(data, target, take_off, None, progress, "restore")
    copied = set(data.all_files()) - set(data.image_files()) - {FOLDER_MANIFEST}
    return PublishReport(target, count, len(copied), None)


def _with_noise(store: NoiseStore, name: str, image: Array) -> Array:
    noise = store.get(content_digest(image), image.shape)
    if noise is None:
        raise PublishError(f"nothing was published: case {name!r} is not in {store.path}{_why_missing(store, image)}")
    _require_type(noise, image, name)
    result = noise.apply(image)
    if np.array_equal(result, image):
        raise PublishError(f"case {name!r}: its noise in {store.path} changes nothing; generate it again")
    return result


def _without_noise(store: NoiseStore, name: str, image: Array) -> Array:
    noise = store.get_protected(content_digest(image), image.shape)
    if noise is None:
        raise PublishError(
            f"case {name!r} is not an image that {store.path} protected: was it changed or compressed after publishing, or is "
            "this the store of another data set? Nothing was restored"
        )
    _require_type(noise, image, name)
    original = noise.remove(image)
    if content_digest(original) != noise.digest:
        raise PublishError(
            f"case {name!r}: taking the noise off does not give the original's digest; {store.path} is damaged"
        )
    return original


def _require_type(noise: Noise, image: Array, name: str) -> None:
    # Noise made on what a loader turned into floats fits the file if its steps are whole; otherwise integers lose it.
    if image.dtype.kind != "f" and noise.quantum != int(noise.quantum):
        raise PublishError(
            f"case {name!r} is stored as {image.dtype.name}, its noise was made for {noise.dtype}; generate it from these files"
        )


def _why_missing(store: NoiseStore, image: Array) -> str:
    if store.get_protected(content_digest(image)) is not None:
        return ", but a protected image of it is the same: the input is a protected copy already. Publish the original"
    if store.has_shape(image.shape):
        return ": its voxels are not those the noise was made for. Generate the noise again from this data set"
    return f": it has shape {image.shape}, the store has {store.shapes()}. Is this the data set the noise was made for?"


def _copy(
    data: Layout, target: Path, edit: Edit, store: NoiseStore | None, progress: ProgressCallback | None, stage: str
) -> tuple[int, Path | None]:
    """Write the copy in a staging folder beside the target and rename it into place."""
    report, total, done = progress or (lambda _: None), len(data.dataset()), 0

    def counted(name: str, image: Array) -> Array:
        nonlocal done
        edited = edit(name, image)
        done += 1
        report(Progress(stage, done, total, name))
        return edited

    final_manifest = manifest_path(target, data.root.is_file())
    with staging_folder(target) as staging:
        staged = staging / target.name
        data.rewrite(staged, counted)
        if store is not None:
            write_manifest(data.reopen(staged), store)
        elif data.root.is_dir():
            (staged / FOLDER_MANIFEST).unlink(missing_ok=True)
        if target.exists():
            os.rename(target, staging / f"replaced.{target.name}")
        # The old manifest would not fit the new file.
        final_manifest.unlink(missing_ok=True)
        # A file's manifest first: should this be cut short, what stands under the name is always known to be ours.
        for entry in (manifest_path(staged, data.root.is_file()), staged):
            if entry.parent == staging and entry.exists():
                os.rename(entry, target.with_name(entry.name))
        sync_folder(target.parent)
    return done, final_manifest if store is not None else None
