"""Checks before a copy is made: refusals, and warnings for the owner."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from monai_salm.formats.base import FormatError
from monai_salm.layouts import MANIFESTS, TRAIN, Layout, open_layout
from monai_salm.layouts.renaming import TEXTS
from monai_salm.noise.digest import content_digest
from monai_salm.publishing.copy_records import was_restored
from monai_salm.publishing.manifest import PathLike, own_files, read_manifest
from monai_salm.publishing.signing import require_key
from monai_salm.publishing.staging import Staging
from monai_salm.shared.files import inside
from monai_salm.shared.settings import require_texts
from monai_salm.store.store import APPLICATION_ID, NoiseStore


class PublishError(ValueError):
    """A copy that was not made; the message says why, names the case or file, and what to do."""


def whole_path(path: PathLike) -> Path:
    """A path that has a name: ``.`` and ``..`` become what they stand for."""
    found = Path(path)
    return found if found.name and found.name != ".." else found.resolve()


def check_publishable(
    source: PathLike | Layout,
    output: PathLike,
    store: PathLike,
    *,
    layout: str | None = None,
    splits: Sequence[str] = (TRAIN,),
    copy: Sequence[str] = (),
    overwrite: bool = False,
    sign_key: PathLike | None = None,
) -> Layout:
    """Refuse what ``publish`` would refuse, as far as that can be told before there is any noise; returns the original data set.

    The store need not exist yet. Arguments and errors are those of ``publish``.
    """
    require_texts(splits=splits, copy=copy)
    data = source if isinstance(source, Layout) else open_layout(source, layout)
    target = whole_path(output)
    if not splits:
        raise PublishError("no split was named whose images are to be protected")
    for split in splits:
        data.require_split(split)
    check_places(data, target, Path(store), overwrite)
    if in_the_way(target) and not data.manifest_path(target).is_file():
        raise PublishError(
            f"{target} is no earlier protected copy: it has no manifest. It would be deleted; remove it or give another output"
        )
    if not target.exists() and data.manifest_path(target).exists():
        raise FileExistsError(f"{data.manifest_path(target)} is there already, without its archive; move it away")
    if sign_key is not None:
        if inside(Path(sign_key), data.root):
            raise PublishError(f"the private key {sign_key} lies inside the input and would be published; move it out")
        require_key(Path(sign_key))
    _require_room(target)
    _require_no_store(data)
    require_no_bare_arrays(data, copy)
    if Path(store).exists():
        NoiseStore(store).settings  # noqa: B018 - raises for what is no store, or an incomplete one
        if not os.access(store, os.W_OK):
            raise PublishError(f"{store} cannot be written; a record of the copy is kept in it. Make it writable")
    if read_manifest(data):
        raise PublishError(f"{data.root} is a protected copy already, by its manifest. Publish the original")
    return data


def check_restorable(data: Layout, target: Path, store: NoiseStore, overwrite: bool) -> None:
    """Refuse what ``restore`` would refuse: above all, to write over anything but what it wrote itself."""
    check_places(data, target, store.path, overwrite)
    if in_the_way(target) and not was_restored(store, target):
        raise PublishError(
            f"{target} was not written by restore with this store, or was changed since: it may be an original. Remove it or "
            "give another place"
        )


def require_outside_copies(path: Path) -> None:
    """Refuse to write a noise store into a protected copy, from where it would go public.

    Raises:
        PublishError: if a folder above has a public manifest.
    """
    folder = _copy_around(path)
    if folder is not None:
        raise PublishError(f"{path} lies in the protected copy {folder} and would go public; give another place")


def _copy_around(path: Path) -> Path | None:
    """The protected copy that a path lies in, by a public manifest in a folder above."""
    folders = path.resolve().parents
    return next((folder for folder in folders if any((folder / name).is_file() for name in MANIFESTS)), None)


def check_places(data: Layout, target: Path, store: Path, overwrite: bool) -> None:
    """Refuse places where the copy would destroy the original, swallow itself, or give the store away."""
    if inside(target, data.root):
        raise PublishError(f"the output {target} lies inside the input {data.root}; give a place outside it")
    if inside(data.root, target):
        raise PublishError(f"the input {data.root} lies inside the output {target}; give another output")
    around = _copy_around(target)
    if around is not None:
        raise PublishError(
            f"the output {target} lies inside the protected copy {around} and would change it; give a place outside it"
        )
    if inside(store, target):
        raise PublishError(f"the noise store {store} lies inside the output {target}: it can undo the protection")
    if inside(store, data.root):
        raise PublishError(
            f"the noise store {store} lies inside the input {data.root} and would be copied; move it out"
        )
    if data.root.is_file() and target.suffix.lower() != data.root.suffix.lower():
        raise PublishError(f"the input is a file {data.root.suffix}; give an output with this ending, not {target}")
    if target.is_symlink():
        raise PublishError(f"the output {target} is a link; give the place itself")
    if not in_the_way(target):
        return
    if not overwrite:
        raise FileExistsError(f"{target} exists; give another output or overwrite it: overwrite=True (--overwrite)")
    if target.is_file() != data.root.is_file():
        kind = "a file" if target.is_file() else "a folder"
        raise PublishError(f"{target} is {kind}, the input is not; remove it first")
    strange = data.strange_files(target, own_files(data))
    if strange:
        more = f" and {len(strange) - 1} more" if strange[1:] else ""
        raise PublishError(
            f"{target} is no earlier copy of this data set, because of {strange[0]!r}{more}: it would be deleted. Remove it or give "
            "another output"
        )


def in_the_way(target: Path) -> bool:
    """Whether there is something that a copy would replace."""
    return target.exists() and not (target.is_dir() and not any(target.iterdir()))


def _require_room(target: Path) -> None:
    """The copy, and the hidden folder that it grows in, can be written beside the place that it is to have."""
    above = next(folder for folder in target.resolve().parents if folder.exists())
    if not above.is_dir():
        raise PublishError(f"the output {target} cannot be written: {above} is a file; give another output")
    if not os.access(above, os.W_OK):
        raise PublishError(f"the output {target} cannot be written: {above} is not writable; give another output")
    with suppress(FileNotFoundError):  # another process is removing it
        Staging(target).require_own()


def _require_no_store(data: Layout) -> None:
    """A noise store lying in the input would be copied, and undo the protection."""
    for file in data.all_files():
        try:
            with open(data.path_of(file), "rb") as stream:
                start = stream.read(72)
        except OSError:
            continue  # it will be listed as one that cannot be copied
        if start[:16] == b"SQLite format 3\0" and int.from_bytes(start[68:72], "big") == APPLICATION_ID:
            raise PublishError(
                f"{data.path_of(file)} is a noise store and would be published with the data; move it out"
            )


def repeated_warnings(data: Layout, store: NoiseStore, splits: Sequence[str]) -> list[str]:
    """Tell the owner of protected images that another split holds too: they stay readable there."""
    protected = {name for split in splits for name in data.dataset(split).names}
    found = []
    for split in data.splits:
        dataset = data.dataset(split) if split not in splits else ()
        for index in range(len(dataset)):
            try:
                case = dataset[index]
            except (FormatError, OSError):
                continue  # copied as it is, readable or not
            if case["name"] not in protected and content_digest(case["image"]) in store:
                found.append(case["name"])
    if not found:
        return []
    more = f" and {len(found) - 3} more" if found[3:] else ""
    return [f"{len(found)} training images are in another split too, unprotected: {', '.join(found[:3])}{more}"]


def renamed_warnings(renamed: Mapping[str, str], texts: Mapping[str, object]) -> list[str]:
    """Tell the owner of images that have another format and name in the copy, and of the ``texts`` that follow."""
    if not renamed:
        return []
    old, new = next(iter(renamed.items()))
    suffix, count = PurePosixPath(new).suffix.lstrip(".").upper(), len(renamed)
    what = f"{count} images become" if count > 1 else "1 image becomes"
    followed = sorted(file for file in texts if file.lower().endswith(TEXTS))
    more = f" and {len(followed) - 3} more" if followed[3:] else ""
    named = f" {', '.join(followed[:3])}{more} there name the new files." if followed else ""
    return [
        f"{what} {suffix} in the copy, since the compression of the original format would destroy the noise: {old} is {new} there"
        f"{', and so on' if count > 1 else ''}.{named} restore gives the original files back"
    ]


def require_no_bare_arrays(data: Layout, copy: Sequence[str] = ()) -> None:
    """Refuse arrays of an archive that no split lists, may hold images, and fit no pattern of ``copy``."""
    arrays = data.unlisted_image_arrays()
    bare = [key for key in arrays if not any(fnmatchcase(key, pattern) for pattern in copy)]
    if bare:
        raise PublishError(
            f"{data.root}: no split lists the array {bare[0]!r}, which may hold images and would be copied unprotected; remove it, "
            f"or copy it unprotected: copy={bare[:1]} (--copy {bare[0]})"
        )
