"""Write the protected copy of a data set, or the original again; nothing is ever passed on unprotected."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np

from monai_salm._files import inside, staging_folder, sync_folder
from monai_salm.digest import content_digest
from monai_salm.formats.base import Array, FormatError
from monai_salm.layouts import TRAIN, Edit, Layout, open_layout
from monai_salm.progress import Progress, ProgressCallback
from monai_salm.publish.manifest import FOLDER_MANIFEST, file_path, manifest_path, read_manifest, write_manifest
from monai_salm.store import APPLICATION_ID, Noise, NoiseStore

PathLike: TypeAlias = str | os.PathLike[str]


class PublishError(ValueError):
    """A copy that was not made; the message says why, names the case or file, and what to do."""


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
    warnings = [*_unlisted(data, noises), *_repeated(data, noises)]

    def protect(name: str, image: Array) -> Array:
        return _with_noise(noises, name, image)

    count, manifest = _copy(data, target, protect, noises, progress, "publish")
    return PublishReport(target, count, len(data.all_files()) - len(data.image_files()), manifest, warnings)


def check_publishable(
    source: PathLike, output: PathLike, store: PathLike, *, layout: str | None = None, overwrite: bool = False
) -> Layout:
    """Refuse what ``publish`` would refuse, as far as that can be told before there is any noise.

    Args:
        source: the original data set.
        output: the copy to be made.
        store: path of the store, which need not exist yet.
        layout: a name of ``layouts.LAYOUTS``; None finds it out.
        overwrite: an earlier copy may be replaced.

    Returns:
        The original data set.

    Raises:
        PublishError, FileExistsError, LayoutError, FormatError, OSError: as ``publish``.
    """
    data = open_layout(source, layout)
    _check_places(data, Path(output), Path(store), overwrite)
    _require_no_store(data)
    if read_manifest(data):
        raise PublishError(f"{data.root} is a protected copy already, by its manifest. Publish the original")
    return data


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
    _check_places(data, target, noises.path, overwrite)

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
    # A fractional quantum on integers would be rounded to no noise at all.
    if noise.dtype != image.dtype.name:
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
        for entry in (staged, manifest_path(staged, data.root.is_file())):
            if entry.parent == staging and entry.exists():
                os.rename(entry, target.with_name(entry.name))
        sync_folder(target.parent)
    return done, final_manifest if store is not None else None


def _check_places(data: Layout, target: Path, store: Path, overwrite: bool) -> None:
    """Refuse places where the copy would destroy the original, swallow itself, or give the store away."""
    if inside(target, data.root):
        raise PublishError(f"the output {target} lies inside the input {data.root}; give a place outside it")
    if inside(data.root, target):
        raise PublishError(f"the input {data.root} lies inside the output {target}; give another output")
    if inside(store, target):
        raise PublishError(
            f"the noise store {store} lies inside the output {target}: who has it can undo the protection"
        )
    if inside(store, data.root):
        raise PublishError(
            f"the noise store {store} lies inside the input {data.root} and would be copied; move it out"
        )
    if target.is_symlink():
        raise PublishError(f"the output {target} is a link; give the place itself")
    if target.is_dir() and not any(target.iterdir()):
        return
    if not target.exists():
        return
    if not overwrite:
        raise FileExistsError(f"{target} exists; give another output or overwrite it (--overwrite)")
    _require_own(target, data)


def _require_own(target: Path, data: Layout) -> None:
    """Overwriting must not delete anything but an earlier copy."""
    if target.is_file() != data.root.is_file():
        raise PublishError(
            f"{target} is {'a file' if target.is_file() else 'a folder'}, the input is not; remove it first"
        )
    if target.is_dir():
        known: Sequence[str] = (*data.all_files(), FOLDER_MANIFEST)
        found = (
            path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_symlink() or not path.is_dir()
        )
        other = sorted(set(found) - set(known))
        if other:
            raise PublishError(
                f"{target} holds {other[0]!r}{f' and {len(other) - 1} more' if other[1:] else ''}, not part of this data set: "
                "it would be deleted. Remove it or give another output"
            )


def _require_no_store(data: Layout) -> None:
    """A noise store lying in the input would be copied, and undo the protection."""
    for file in data.all_files():
        with open(file_path(data, file), "rb") as stream:
            start = stream.read(72)
        if start[:16] == b"SQLite format 3\0" and int.from_bytes(start[68:72], "big") == APPLICATION_ID:
            raise PublishError(
                f"{file_path(data, file)} is a noise store and would be published with the data; move it out"
            )


def _repeated(data: Layout, store: NoiseStore) -> list[str]:
    """Training images that another split holds too stay readable there; that is for the owner to know."""
    protected, found = set(data.image_files()) if data.root.is_dir() else set(), []
    for split in data.splits:
        dataset = data.dataset(split) if split != TRAIN else ()
        for index in range(len(dataset)):
            try:
                case = dataset[index]
            except FormatError:
                continue  # copied as it is, readable or not
            if case["name"] not in protected and content_digest(case["image"]) in store:
                found.append(case["name"])
    if not found:
        return []
    more = f" and {len(found) - 3} more" if found[3:] else ""
    return [f"{len(found)} training images are in another split too, unprotected: {', '.join(found[:3])}{more}"]


def _unlisted(data: Layout, store: NoiseStore) -> list[str]:
    """Images that no split lists are copied as they are: an error if one is an original, else a warning."""
    names = []
    for file, image in data.unlisted_images():
        if content_digest(image) in store:
            raise PublishError(
                f"{file} is a copy of a training image that no split lists, and would be published unprotected; remove it"
            )
        names.append(file)
    if not names:
        return []
    more = f" and {len(names) - 3} more" if names[3:] else ""
    return [f"{len(names)} images that no split lists were copied unprotected: {', '.join(names[:3])}{more}"]
