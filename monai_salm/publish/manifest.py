"""The public manifest of a protected copy: what was done to it, and the digests of the files it was done to.

It stands in the folder as ``monai_salm.json``, or beside a single-file data set as ``<file>.salm.json``. It tells nothing
about the originals: no digests of them, no seed, no path outside the copy.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from monai_salm._files import atomic_file, file_sha256
from monai_salm._version import __version__
from monai_salm.layouts import Layout
from monai_salm.store import NoiseStore

FOLDER_MANIFEST = "monai_salm.json"
_FORMAT_VERSION = 1
_NOTICE = (
    "The training images carry imperceptible noise, added by their owner to keep networks trained on them from learning. "
    "It is a deterrent, no guarantee. See https://arxiv.org/abs/2403.10573"
)


def manifest_path(root: Path, single_file: bool) -> Path:
    """Where the manifest of a data set stands.

    Args:
        root: the folder or the single file of the data set.
        single_file: which of the two it is.
    """
    return root.with_name(f"{root.name}.salm.json") if single_file else root / FOLDER_MANIFEST


def file_path(layout: Layout, file: str) -> Path:
    """Path of a file that ``Layout.image_files`` names."""
    return layout.root if layout.root.is_file() else layout.root / file


def write_manifest(layout: Layout, store: NoiseStore) -> Path:
    """Describe a protected copy.

    Args:
        layout: the copy.
        store: the noise that was put in.

    Returns:
        The manifest's path.
    """
    path = manifest_path(layout.root, layout.root.is_file())
    content = {
        "format_version": _FORMAT_VERSION,
        "monai_salm": __version__,
        "notice": _NOTICE,
        **_settings(store),
        "files": {file: file_sha256(file_path(layout, file)) for file in layout.image_files()},
    }
    with atomic_file(path) as file:
        file.write((json.dumps(content, indent=1, sort_keys=True) + "\n").encode())
    return path


def read_manifest(layout: Layout) -> dict[str, Any]:
    """The manifest of a data set; empty if it has none, that is, if it is no protected copy.

    Raises:
        ValueError: if the file is no manifest.
    """
    path = manifest_path(layout.root, layout.root.is_file())
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text("utf-8"))
        if not isinstance(content["files"], dict):
            raise TypeError("files")
        low, high = content["window"]
        return {**content, "epsilon": float(content["epsilon"]), "window": [float(low), float(high)]}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is no manifest of a protected copy ({error!r}); publish again") from error


def manifest_problems(layout: Layout, store: NoiseStore) -> Iterator[str]:
    """What is wrong with the manifest of a protected copy, one line each."""
    path = manifest_path(layout.root, layout.root.is_file())
    try:
        content = read_manifest(layout)
    except (OSError, ValueError) as error:
        yield str(error)
        return
    if not content:
        yield f"{path.name}: missing; publish again"
        return
    files = content["files"]
    for key, value in _settings(store).items():
        if content.get(key) != value:
            yield f"{path.name}: {key} is {content.get(key)}, the store has {value}"
    expected = layout.image_files()
    for file in sorted(set(expected) ^ set(files)):
        yield f"{path.name}: {'lacks' if file in expected else 'lists an unknown'} file {file}"
    for file in expected:
        if file in files and file_path(layout, file).is_file() and files[file] != file_sha256(file_path(layout, file)):
            yield f"{file}: does not match its digest in {path.name}"


def _settings(store: NoiseStore) -> dict[str, Any]:
    settings = store.settings
    return {"epsilon": settings.epsilon, "window": [settings.window.low, settings.window.high]}
