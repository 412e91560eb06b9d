"""The owner's key: a secret file by which a store is known as its owner's."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from monai_salm.noise.noise import NoiseStoreError

#: Names another file than the one in the user's configuration folder.
VARIABLE = "MONAI_SALM_KEY"
_SIZE = 32


def owner_key_path() -> Path:
    """The file that holds the owner's key, unless one is named: ``$MONAI_SALM_KEY``, or ``owner.key`` in the user's configuration."""
    import typer

    return Path(os.environ.get(VARIABLE) or Path(typer.get_app_dir("monai_salm"), "owner.key"))


def read_key(path: Path) -> bytes | None:
    """The owner's key in a file, or None if there is none; NoiseStoreError if it cannot be read, is no key, or others can read it."""
    try:
        mode, key = stat.S_IMODE(path.stat().st_mode), path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise NoiseStoreError(
            f"the owner's key {path} cannot be read: {error.strerror}; check its permissions"
        ) from error
    if len(key) != _SIZE:
        raise NoiseStoreError(
            f"{path} is no owner's key: it has {len(key)} bytes, a key has {_SIZE}. Give the right file: --key FILE, or ${VARIABLE}"
        )
    if os.name == "posix" and mode & 0o077:
        raise NoiseStoreError(f"others can read the owner's key {path} (mode {mode:04o}): chmod 600 {path}")
    return key


def make_key(path: Path) -> bytes:
    """The owner's key in a file, which is made if it is not there; NoiseStoreError as for ``read_key``, or if it cannot be made."""
    key = read_key(path)
    if key is not None:
        return key
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_SIZE))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)  # unlike a rename, this never replaces a key that another process has just made
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
    except OSError as error:
        raise NoiseStoreError(
            f"the owner's key {path} cannot be made: {error.strerror or error}. Name another file: --key FILE, or ${VARIABLE}"
        ) from error
    made = read_key(path)
    assert made is not None
    return made
