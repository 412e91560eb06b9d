"""The public manifest of a protected copy: what was done to it, and the digests of the files it was done to.

It stands in the folder as ``monai_salm.json`` (where the layout has another place for it, there), or beside a single-file
data set as ``<file>.salm.json``. It lists every file of the copy with its SHA-256, so that a signature of the manifest covers
them all. It tells nothing about the originals: no digests of them, no seed, no path outside the copy.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

from monai_salm._version import __version__
from monai_salm.layouts import TRAIN, CaseSequence, Layout, open_layout
from monai_salm.noise.window import rule_from_spec
from monai_salm.publishing.searching import in_threads
from monai_salm.shared.files import atomic_file, file_sha256
from monai_salm.store.store import NoiseStore

PathLike: TypeAlias = str | os.PathLike[str]

#: The version that lists every file.
FORMAT_VERSION = 2
_NOTICE = (
    "Images of the listed files carry imperceptible noise, added by their owner to keep networks trained on them from learning. "
    "It is a deterrent, no guarantee. See https://arxiv.org/abs/2403.10573"
)


def own_files(data: Layout) -> tuple[str, ...]:
    """The files that a copy of a folder has beside those of the original: the manifest and its signature."""
    return (data.manifest, f"{data.manifest}.sig") if data.manifest else ()


def write_manifest(
    data: Layout,
    root: Path,
    images: Collection[str],
    digests: Mapping[str, str],
    store: NoiseStore,
    splits: Sequence[str],
    dataset: Mapping[str, str | None],
) -> Path:
    """Describe the protected copy of a data set at ``root``: its files, the noise, the protected splits.

    ``images`` are the files with protected images, ``digests`` the SHA-256 of every file but the manifest and its signature;
    ``dataset`` has ``name``, ``version`` (None if the owner gave none) and ``date``.
    """
    protected = set(images)
    held = {parent.as_posix() for file in digests for parent in PurePosixPath(file).parents}
    folders = {Path(folder).relative_to(root).as_posix() for folder, _, _ in os.walk(root)} - {"."}
    content = {
        "format_version": FORMAT_VERSION,
        "monai_salm": __version__,
        "layout": data.spec,
        "notice": _NOTICE,
        "dataset": dict(dataset),
        "splits": list(splits),
        **_settings(store),
        "files": {file: digests[file] for file in images},
        "other_files": {file: digest for file, digest in digests.items() if file not in protected},
        "folders": sorted(folders - held),
    }
    path = data.manifest_path(root)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        file.write(_text(content))
    return path


def read_manifest(layout: Layout, root: Path | None = None) -> dict[str, Any]:
    """The manifest of a data set, or of a copy of it at ``root``; empty if there is none, that is, for no protected copy.

    Raises:
        ValueError: if the file is no manifest.
    """
    path = layout.manifest_path(root)
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text("utf-8"))
        for files in (content["files"], content.get("other_files", {})):
            if not isinstance(files, dict):
                raise TypeError("files")
        splits = content.get("splits", [TRAIN])
        if not isinstance(splits, list) or not all(isinstance(split, str) for split in splits):
            raise TypeError("splits")
        window = rule_from_spec(content["window"]).spec()
        return {**content, "splits": splits, "epsilon": float(content["epsilon"]), "window": window}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is no manifest of a protected copy ({error!r}); publish again") from error


def manifest_problems(
    layout: Layout,
    root: Path,
    store: NoiseStore,
    splits: Sequence[str],
    left_out: Collection[str],
    known: Mapping[str, str],
    jobs: int = 1,
) -> Iterator[str]:
    """What is wrong with the manifest of the protected copy at ``root``, one line each.

    ``layout`` is the original; ``left_out`` are the image files that the copy lacks for a known reason; ``known`` is the
    SHA-256 of files that were read before.
    """
    path = layout.manifest_path(root)
    try:
        content = read_manifest(layout, root)
    except (OSError, ValueError) as error:
        yield str(error)
        return
    if not content:
        yield f"{path.name}: missing; publish again"
        return
    files, others = content["files"], content.get("other_files", {})
    expected_values = {"format_version": FORMAT_VERSION, "splits": list(splits), "notice": _NOTICE}
    for key, value in {**_settings(store), **expected_values}.items():
        if content.get(key) != value:
            yield f"{path.name}: {key} is {content.get(key)}, expected {value}"
    written = path.read_bytes()
    if written != _text(json.loads(written)):
        yield f"{path.name}: its text is not as it was written; publish again"
    expected = {file for file in layout.published_files(splits, root) if file in files or file not in left_out}
    found = digests_of(root, jobs, own_files(layout), known)
    for listed, there in ((files, expected), (others, set(found) - set(files))):
        for file in sorted(there ^ set(listed)):
            yield f"{path.name}: {'lacks' if file in there else 'lists an unknown'} file {file}"
        for file in sorted(there & set(listed) & set(found)):
            if listed[file] != found[file]:
                yield f"{file}: does not match its digest in {path.name}"


def digests_of(
    root: Path, jobs: int, without: Sequence[str] = (), known: Mapping[str, str] | None = None
) -> dict[str, str]:
    """SHA-256 of every file under a folder but some, or of a single file under its name; that of ``known`` ones is not taken again."""
    if root.is_file():
        return {root.name: file_sha256(root)}
    found = [Path(folder, name) for folder, _, names in os.walk(root) for name in names]
    files = sorted({path.relative_to(root).as_posix() for path in found if path.is_file()} - set(without))
    known = known or {}
    new = [file for file in files if file not in known]
    taken = dict(zip(new, in_threads(file_sha256, [root / file for file in new], jobs), strict=True))
    return {file: known.get(file) or taken[file] for file in files}


def open_pair(source: PathLike, output: PathLike, layout: str | None = None) -> tuple[Layout, Layout, dict[str, Any]]:
    """Open an original and its protected copy.

    Returns:
        Both, and the copy's public manifest, which is empty for a copy that was not written by ``publish``.

    Raises:
        ValueError: if the original is a protected copy itself.
        LayoutError, FormatError, OSError: if one of them cannot be read.
    """
    clean = open_layout(source, layout)
    if read_manifest(clean):
        raise ValueError(f"{source} is a protected copy, by its manifest: give the original first, then the copy")
    published = clean.reopen(Path(output))
    return clean, published, read_manifest(published)


def clean_test_cases(source: PathLike, layout: str | None = None) -> CaseSequence:
    """The clean cases of a data set to test on: its test split if that has labels, else its training split.

    Raises:
        ValueError: if that split has no labels, or was protected.
        LayoutError, FormatError, OSError: if the data set cannot be read.
    """
    data = open_layout(source, layout)
    split = "test" if "test" in data.splits and data.has_labels("test") else TRAIN
    if split in read_manifest(data).get("splits", ()):
        raise ValueError(f"{data.root} is a protected copy, and its {split} split is protected; test on clean images")
    if not data.has_labels(split):
        raise ValueError(f"{data.root} has no labelled cases to test on")
    return data.dataset(split)


def _text(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()


def _settings(store: NoiseStore) -> dict[str, Any]:
    settings = store.settings
    return {"epsilon": settings.epsilon, "window": json.loads(json.dumps(settings.window.spec()))}
