"""The public manifest of a protected copy: what was done to it, and the digests of the files it was done to.

It stands in the folder as ``monai_salm.json`` (where the layout has another place for it, there), or beside a single-file
data set as ``<file>.salm.json``. It tells nothing about the originals: no digests of them, no seed, no path outside the copy.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from monai_salm._version import __version__
from monai_salm.layouts import TRAIN, FolderLayout, Layout
from monai_salm.noise.window import rule_from_spec
from monai_salm.shared.files import atomic_file, file_sha256
from monai_salm.store.store import NoiseStore

_FORMAT_VERSION = 1
_NOTICE = (
    "Images of the listed files carry imperceptible noise, added by their owner to keep networks trained on them from learning. "
    "It is a deterrent, no guarantee. See https://arxiv.org/abs/2403.10573"
)


def manifest_path(layout: Layout, root: Path | None = None) -> Path:
    """Where the manifest of a data set, or of a copy of it, stands.

    Args:
        layout: the data set.
        root: the folder or the file of the copy; None is the data set itself.
    """
    root = layout.root if root is None else root
    return root / layout.manifest if isinstance(layout, FolderLayout) else root.with_name(f"{root.name}.salm.json")


def signature_path(manifest: Path) -> Path:
    """Where the signature of a manifest stands."""
    return manifest.with_name(manifest.name + ".sig")


def file_path(layout: Layout, file: str, root: Path | None = None) -> Path:
    """Path of a file that ``Layout.image_files`` names, in the data set or in a copy of it at ``root``."""
    root = layout.root if root is None else root
    return root / file if isinstance(layout, FolderLayout) else root


def write_manifest(
    path: Path, digests: dict[str, str], store: NoiseStore, splits: Sequence[str], layout: str | None = None
) -> None:
    """Describe a protected copy.

    Args:
        path: of the manifest.
        digests: SHA-256 of every file with protected images, hexadecimal.
        store: the noise that was put in.
        splits: whose images were protected.
        layout: what ``open_layout`` opens the copy with.
    """
    content = {
        "format_version": _FORMAT_VERSION,
        "monai_salm": __version__,
        **({} if layout is None else {"layout": layout}),
        "notice": _NOTICE,
        "splits": list(splits),
        **_settings(store),
        "files": digests,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        file.write(_text(content))


def read_manifest(layout: Layout, root: Path | None = None) -> dict[str, Any]:
    """The manifest of a data set; empty if it has none, that is, if it is no protected copy.

    Args:
        layout: the data set.
        root: a copy of it; None is the data set itself.

    Raises:
        ValueError: if the file is no manifest.
    """
    path = manifest_path(layout, root)
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text("utf-8"))
        if not isinstance(content["files"], dict):
            raise TypeError("files")
        splits = content.get("splits", [TRAIN])
        if not isinstance(splits, list) or not all(isinstance(split, str) for split in splits):
            raise TypeError("splits")
        window = rule_from_spec(content["window"]).spec()
        return {**content, "splits": splits, "epsilon": float(content["epsilon"]), "window": window}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is no manifest of a protected copy ({error!r}); publish again") from error


def manifest_problems(
    layout: Layout, root: Path, store: NoiseStore, splits: Sequence[str], left_out: Collection[str]
) -> Iterator[str]:
    """What is wrong with the manifest of a protected copy, one line each.

    Args:
        layout: the original data set.
        root: the copy.
        store: the noise.
        splits: whose images are protected.
        left_out: image files that the copy lacks for a known reason.
    """
    path = manifest_path(layout, root)
    try:
        content = read_manifest(layout, root)
    except (OSError, ValueError) as error:
        yield str(error)
        return
    if not content:
        yield f"{path.name}: missing; publish again"
        return
    files = content["files"]
    for key, value in {**_settings(store), "splits": list(splits), "notice": _NOTICE}.items():
        if content.get(key) != value:
            yield f"{path.name}: {key} is {content.get(key)}, expected {value}"
    written = path.read_bytes()
    if written != _text(json.loads(written)):
        yield f"{path.name}: its text is not as it was written; publish again"
    named = layout.published_files(splits) if isinstance(layout, FolderLayout) else (root.name,)
    expected = {file for file in named if file in files or file not in left_out}
    for file in sorted(expected ^ set(files)):
        yield f"{path.name}: {'lacks' if file in expected else 'lists an unknown'} file {file}"
    for file in sorted(expected & set(files)):
        place = file_path(layout, file, root)
        if place.is_file() and files[file] != file_sha256(place):
            yield f"{file}: does not match its digest in {path.name}"


def _text(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()


def _settings(store: NoiseStore) -> dict[str, Any]:
    settings = store.settings
    return {"epsilon": settings.epsilon, "window": json.loads(json.dumps(settings.window.spec()))}
