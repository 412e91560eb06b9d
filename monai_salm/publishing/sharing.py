"""Encrypting a noise store for those who may have the originals back (age, age-encryption.org); extra ``crypto``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai_salm.publishing.preconditions import require_outside_copies
from monai_salm.shared.files import atomic_file
from monai_salm.shared.leftovers import temporary_folder
from monai_salm.store.records import copy_without_records
from monai_salm.store.store import NoiseStore, NoiseStoreError

_NEEDED = 'encryption needs pyrage: pip install "monai_salm[crypto]"'


def encrypt_store(store: Path, output: Path, recipients: Sequence[str]) -> None:
    """Encrypt a store, so that only the recipients can read it and restore the originals.

    The record of where copies were published stays with the owner.

    Args:
        store: the noise store.
        output: the encrypted file; must not exist.
        recipients: age public keys (``age1...``) or ssh public keys (``ssh-ed25519 ...``).

    Raises:
        ImportError: without the extra ``crypto``.
        NoiseStoreError: if the store is none or damaged.
        FileExistsError: if the output exists.
        ValueError: for a recipient that is no public key.
    """
    age = _age()
    if not recipients:
        raise ValueError("give at least one recipient, an age public key such as age1...")
    NoiseStore(store).check()
    _require_new(output)
    keys = [_recipient(age, text) for text in recipients]
    with temporary_folder() as folder:
        plain = copy_without_records(store, folder / "store.db")
        with atomic_file(output, private=True) as file, open(plain, "rb") as reader:
            age.encrypt_io(reader, file, keys)


def decrypt_store(encrypted: Path, store: Path, identity: Path) -> None:
    """Decrypt a store that was encrypted for the holder of an identity.

    Args:
        encrypted: what ``encrypt_store`` wrote.
        store: the store; must not exist. Only its owner can read it.
        identity: age identity file (lines ``AGE-SECRET-KEY-1...``, comments with ``#``) or an ssh private key.

    Raises:
        ImportError: without the extra ``crypto``.
        FileExistsError: if the store exists.
        NoiseStoreError: if the file was not encrypted for the identity, was changed, or holds no store.
    """
    age = _age()
    _require_new(store)
    require_outside_copies(store)
    keys = _identities(age, identity)
    try:
        with open(encrypted, "rb") as secret, atomic_file(store, private=True) as file:
            age.decrypt_io(secret, file, keys)
    except (age.DecryptError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the disk, not of the key
        raise NoiseStoreError(f"{encrypted} cannot be decrypted with {identity}: {error}") from error
    try:
        NoiseStore(store).check()
    except NoiseStoreError:
        store.unlink()
        raise


def _age() -> Any:
    try:
        import pyrage
    except ImportError as error:
        raise ImportError(_NEEDED) from error
    return pyrage


def _require_new(path: Path) -> None:
    if path.exists():
        raise FileExistsError(f"{path} exists; give another place")


def _recipient(age: Any, text: str) -> Any:
    kind = age.ssh if text.startswith("ssh-") else age.x25519
    try:
        return kind.Recipient.from_str(text)
    except (age.RecipientError, ValueError) as error:
        raise ValueError(f"{text!r} is no age or ssh public key: {error}") from error


def _identities(age: Any, path: Path) -> list[Any]:
    content = path.read_bytes()
    try:
        if content.startswith(b"-----BEGIN"):
            return [age.ssh.Identity.from_buffer(content)]
        lines = [line.strip() for line in content.decode().splitlines()]
        keys = [age.x25519.Identity.from_str(line) for line in lines if line and not line.startswith("#")]
    except (age.IdentityError, ValueError) as error:
        raise ValueError(f"{path} is no age identity or ssh private key: {error}") from error
    if not keys:
        raise ValueError(f"{path} holds no age identity")
    return keys
