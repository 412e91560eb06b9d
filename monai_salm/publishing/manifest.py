"""The public manifest of a protected copy: what was done to it, and the digests of the files it was done to.

It stands in the folder as ``monai_salm.json`` (where the layout has another place for it, there), or beside a single-file
data set as ``<file>.salm.json``. It tells nothing about the originals: no digests of them, no seed, no path outside the copy.
Its signature (Ed25519, extra ``crypto``), by which readers tell the owner's copy from another, stands beside it.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from monai_salm._version import __version__
from monai_salm.layouts import TRAIN, CaseSequence, Layout, open_layout
from monai_salm.noise.window import rule_from_spec
from monai_salm.shared.files import atomic_file, file_sha256
from monai_salm.store.store import NoiseStore

PathLike: TypeAlias = str | os.PathLike[str]

_FORMAT_VERSION = 1
_NEEDED = 'signatures need cryptography: pip install "monai_salm[crypto]"'
_NOTICE = (
    "Images of the listed files carry imperceptible noise, added by their owner to keep networks trained on them from learning. "
    "It is a deterrent, no guarantee. See https://arxiv.org/abs/2403.10573"
)


def signature_path(manifest: Path) -> Path:
    """Where the signature of a manifest stands."""
    return manifest.with_name(manifest.name + ".sig")


def own_files(data: Layout) -> tuple[str, ...]:
    """The files that a copy of a folder has beside those of the original: the manifest and its signature."""
    return (data.manifest, f"{data.manifest}.sig") if data.manifest else ()


def write_manifest(
    path: Path, digests: Mapping[str, str], store: NoiseStore, splits: Sequence[str], layout: str
) -> None:
    """Describe a protected copy: the SHA-256 of every file with protected images, the noise, the protected splits.

    ``layout`` is what ``open_layout`` opens the copy with.
    """
    content = {
        "format_version": _FORMAT_VERSION,
        "monai_salm": __version__,
        "layout": layout,
        "notice": _NOTICE,
        "splits": list(splits),
        **_settings(store),
        "files": digests,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        file.write(_text(content))


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
    """What is wrong with the manifest of the protected copy at ``root``, one line each.

    ``layout`` is the original; ``left_out`` are the image files that the copy lacks for a known reason.
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
    files = content["files"]
    for key, value in {**_settings(store), "splits": list(splits), "notice": _NOTICE}.items():
        if content.get(key) != value:
            yield f"{path.name}: {key} is {content.get(key)}, expected {value}"
    written = path.read_bytes()
    if written != _text(json.loads(written)):
        yield f"{path.name}: its text is not as it was written; publish again"
    expected = {file for file in layout.published_files(splits, root) if file in files or file not in left_out}
    for file in sorted(expected ^ set(files)):
        yield f"{path.name}: {'lacks' if file in expected else 'lists an unknown'} file {file}"
    for file in sorted(expected & set(files)):
        place = layout.path_of(file, root)
        if place.is_file() and files[file] != file_sha256(place):
            yield f"{file}: does not match its digest in {path.name}"


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


def sign_manifest(manifest: Path, key: Path) -> Path:
    """Write the signature of a manifest beside it, one line of base64, and return its path.

    Args:
        manifest: the file to sign.
        key: Ed25519 private key, PEM without a password (``openssl genpkey -algorithm ed25519 -out key.pem``).

    Raises:
        ImportError: without the extra ``crypto``.
        ValueError: if the key is of another kind.
    """
    private = _load(key, private=True)
    path = signature_path(manifest)
    with atomic_file(path) as file:
        file.write(base64.b64encode(private.sign(manifest.read_bytes())) + b"\n")
    return path


def require_key(key: Path) -> None:
    """Refuse a private key that cannot sign, before any work, with the errors of ``sign_manifest``."""
    _load(key, private=True)


def signature_problem(manifest: Path, public_key: Path) -> str | None:
    """What is wrong with the signature of a manifest, or None.

    Args:
        manifest: the signed file.
        public_key: Ed25519 public key, PEM (``openssl pkey -in key.pem -pubout -out public.pem``).

    Raises:
        ImportError: without the extra ``crypto``.
        ValueError: if the key is of another kind.
    """
    public = _load(public_key, private=False)
    from cryptography.exceptions import InvalidSignature

    path = signature_path(manifest)
    if not path.is_file():
        return f"{path.name}: missing; the manifest is not signed"
    try:
        signature = base64.b64decode(path.read_bytes()[:-1], validate=True)
        if path.read_bytes() != base64.b64encode(signature) + b"\n":
            raise ValueError("not as it was written")
        public.verify(signature, manifest.read_bytes())
    except (InvalidSignature, ValueError):
        return f"{path.name}: the manifest was not signed with the private key of {public_key}, or was changed since"
    return None


def _load(path: Path, private: bool) -> Any:
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
    except ImportError as error:
        raise ImportError(_NEEDED) from error
    content = path.read_bytes()
    kind = "private" if private else "public"
    try:
        key = load_pem_private_key(content, None) if private else load_pem_public_key(content)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ValueError(f"{path} is no {kind} key in PEM without a password: {error}") from error
    if not isinstance(key, Ed25519PrivateKey if private else Ed25519PublicKey):
        raise ValueError(f"{path} is a {kind} key of another kind; make one with openssl genpkey -algorithm ed25519")
    return key
