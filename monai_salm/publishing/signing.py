"""Signatures of public manifests (Ed25519, extra ``crypto``), by which readers tell the owner's copy from another.

The signature stands beside the manifest, as one line of base64.
"""

from __future__ import annotations

import base64
import os
import stat
from pathlib import Path
from typing import Any

from monai_salm.shared.files import atomic_file

_NEEDED = 'signatures need cryptography: pip install "monai_salm[crypto]"'


def signature_path(manifest: Path) -> Path:
    """Where the signature of a manifest stands."""
    return manifest.with_name(manifest.name + ".sig")


def sign_manifest(manifest: Path, key: Path) -> Path:
    """Write the signature of a manifest beside it, one line of base64, and return its path.

    The key is Ed25519, PEM without a password (``openssl genpkey -algorithm ed25519 -out key.pem``). ImportError without
    the extra ``crypto``, ValueError for a key of another kind, or one that others can read.
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
    """What is wrong with the signature of a manifest by an Ed25519 public key (PEM), or None.

    ImportError without the extra ``crypto``, ValueError for a key of another kind.
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
    if private and os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:  # Windows has no such modes
        raise ValueError(f"others can read or change the private key {path}; make it yours alone: chmod 600 {path}")
    try:
        key = load_pem_private_key(content, None) if private else load_pem_public_key(content)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ValueError(f"{path} is no {kind} key in PEM without a password: {error}") from error
    if not isinstance(key, Ed25519PrivateKey if private else Ed25519PublicKey):
        raise ValueError(f"{path} is a {kind} key of another kind; make one with openssl genpkey -algorithm ed25519")
    return key
