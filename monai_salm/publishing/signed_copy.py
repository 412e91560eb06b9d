"""What a reader can prove of a protected copy, without originals and store: that every file is as its owner signed it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from monai_salm.layouts import MANIFESTS
from monai_salm.publishing.manifest import FORMAT_VERSION, PathLike
from monai_salm.publishing.searching import in_threads
from monai_salm.publishing.signing import signature_path, signature_problem
from monai_salm.publishing.verifying import VerifyReport
from monai_salm.shared.files import file_sha256
from monai_salm.shared.progress import Progress, ProgressCallback


def verify_copy(
    copy: PathLike, signer: PathLike, *, jobs: int = 1, progress: ProgressCallback | None = None
) -> tuple[VerifyReport, dict[str, Any]]:
    """Check a protected copy against the signature of its owner. Needs neither the originals nor the store.

    The signature of the manifest is checked before the manifest is read. Then every file must have the SHA-256 of the manifest, and
    no file may be missing or added.

    Args:
        copy: the protected copy, a folder or a single file with its manifest beside it.
        signer: file of the owner's Ed25519 public key (PEM).
        jobs: threads.
        progress: called with a ``Progress`` for every file.

    Returns:
        The report, which counts files, and ``name``, ``version`` and ``date`` of the data set as its owner signed them; empty
        where the signature is wrong.

    Raises:
        FileNotFoundError: if there is no such copy.
        ImportError: without the extra ``crypto``.
        ValueError: if the key is of another kind.
        OSError: for a file that cannot be read.
    """
    root, key = Path(copy), Path(signer)
    if not root.exists():
        raise FileNotFoundError(f"{root} does not exist; check the path")
    manifest, problem = _signed_manifest(root, key)
    if problem is not None:
        return VerifyReport(0, [problem]), {}
    try:
        content = json.loads(manifest.read_bytes())
        version, dataset, folders = content["format_version"], dict(content["dataset"]), set(content["folders"])
        listed = {**content["files"], **content["other_files"]}
    except (ValueError, KeyError, TypeError, RecursionError):
        version = None
    if version != FORMAT_VERSION:
        problem = f"{manifest.name}: is of another version and does not list every file; ask the owner to publish again"
        return VerifyReport(0, [problem]), {}
    found, problems = _files(root, manifest, {*listed, *folders})
    there = sorted(set(found) & set(listed))
    for done, digest in enumerate(in_threads(file_sha256, [found[file] for file in there], jobs), start=1):
        file = there[done - 1]
        if digest != listed[file]:
            problems.append(f"{file}: changed since its owner signed it")
        if progress is not None:
            progress(Progress("verify", done, len(there), file))
    problems += [f"{file}: added; its owner did not sign it" for file in sorted(set(found) - set(listed))]
    problems += [f"{file}: missing; its owner signed it" for file in sorted(set(listed) - set(found))]
    return VerifyReport(len(there), sorted(problems)), dataset


def _signed_manifest(root: Path, key: Path) -> tuple[Path, str | None]:
    """The manifest that the key has signed, and what is wrong if there is none."""
    names = sorted(MANIFESTS) if root.is_dir() else []
    places = [root / name for name in names] or [root.with_name(f"{root.name}.salm.json")]
    manifests = [place for place in places if place.is_file()]
    if not manifests:
        return places[0], "there is no manifest: this is no protected copy, or its manifest was removed"
    checked = [(manifest, signature_problem(manifest, key)) for manifest in manifests]
    return next((pair for pair in checked if pair[1] is None), checked[0])


def _files(root: Path, manifest: Path, listed: set[str]) -> tuple[dict[str, Path], list[str]]:
    """The files of a copy but the manifest and its signature; links, other things and added folders are problems."""
    if root.is_file():
        return {root.name: root}, []
    own = {path.relative_to(root).as_posix() for path in (manifest, signature_path(manifest))}
    needed = {"."} | listed | {parent.as_posix() for file in {*listed, *own} for parent in PurePosixPath(file).parents}
    found, problems = {}, []
    for path in sorted(_everything(root)):
        file = path.relative_to(root).as_posix()
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            problems.append(f"{file}: a link or no plain file; its owner signed plain files")
        elif path.is_dir():
            if file not in needed:
                problems.append(f"{file}: added; its owner did not sign this folder")
        elif file not in own:
            found[file] = path
    return found, problems


def _everything(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        yield from (Path(folder, name) for name in (*folders, *files))
