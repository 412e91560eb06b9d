"""The change of one image: noise is put in, or taken off again; no image is passed on unprotected."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from monai_salm.formats.base import FormatError, opened_once
from monai_salm.layouts.stored_images import StoredImage
from monai_salm.noise.digest import content_digest
from monai_salm.noise.kinds import one_channel
from monai_salm.publishing.copy_records import copy_key, header_key
from monai_salm.publishing.noise_rules import NoiseRules
from monai_salm.shared.arrays import Array
from monai_salm.shared.files import copy_file, file_sha256
from monai_salm.shared.images import KEEP_AXES
from monai_salm.store.records import keep, kept, skipped_of
from monai_salm.store.store import Noise, NoiseStore, NoiseStoreError

#: Parts that wait to be kept, at most.
_MOST_WAITING = 64


class LeftOutError(ValueError):
    """One image that cannot be part of the copy; the others can."""


@dataclass(frozen=True)
class Protection:
    """Puts the store's noise into images; ``waiting`` is what the store does not keep yet."""

    store: NoiseStore
    waiting: dict[str, bytes] = field(default_factory=dict, repr=False, compare=False)
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def edit(self, name: str, image: Array) -> Array:
        """The protected image; one that is grey in several channels may have the noise of a grey image.

        Raises:
            LeftOutError: if it cannot be protected.
        """
        self._require_made(name)
        return self._protected(name, image)[0]

    def _protected(self, name: str, image: Array) -> tuple[Array, bytes]:
        """The protected image and its digest."""
        noise = self.store.get(content_digest(image), image.shape)
        grey = one_channel(image) if noise is None else None
        if grey is not None and self.store.get(content_digest(grey), grey.shape) is not None:
            result = np.repeat(self._protected(name, grey)[0], len(image), axis=0)
            return result, content_digest(result)
        if noise is None:
            raise LeftOutError(f"case {name!r} is not in {self.store.path}{_why_missing(self.store, image)}")
        _require_type(noise, image, name)
        result = _moved(noise.apply, image)
        if noise.protected == noise.digest:
            raise LeftOutError(f"case {name!r}: its noise in {self.store.path} changes nothing; generate it again")
        return result, noise.protected

    def write(self, stored: StoredImage, root: Path, output: Path) -> None:
        """Write the protected files of an image, and keep what they lack and what their header was."""
        self._require_made(stored.name)
        published = b""

        def edit(image: Array) -> Array:
            nonlocal published
            result, published = self._protected(stored.name, image)
            return result

        with opened_once():
            keepsake, frame = stored.keepsake(root), stored.frame(root)
            stored.rewrite(root, output, edit)
        parts = {header_key(published, frame): b""}
        if keepsake is not None:
            parts[copy_key(output, stored.published)] = keepsake
        self.waiting.update(parts)
        if len(self.waiting) >= _MOST_WAITING:
            self.flush()

    def flush(self) -> None:
        """Write what is to be kept into the store, many images at a time: each write waits for the disk."""
        with self.lock:
            parts = dict(self.waiting)
            keep(self.store, parts)
            for key in parts:
                del self.waiting[key]

    @cached_property
    def _skipped(self) -> dict[str, str]:
        return skipped_of(self.store)

    def _require_made(self, name: str) -> None:
        """Refuse an image that was left out when the noise was made, for the reason that was given then."""
        if name in self._skipped:
            raise LeftOutError(self._skipped[name])

    def finished(self, stored: StoredImage, root: Path, output: Path) -> bool:
        """Whether files that are there are all there is to an image: a kill may have come before the store kept its header."""
        try:
            published = content_digest(stored.in_copy().read(output))
            with opened_once():
                keys = [header_key(published, stored.frame(root))]
                keys += [] if stored.keepsake(root) is None else [copy_key(output, stored.published)]
        except (FormatError, OSError):  # told when the image is written again
            return False
        return all(kept(self.store, key) is not None for key in keys)

    def files(self, stored: StoredImage, root: Path) -> tuple[str, ...]:
        """The files that ``write`` writes."""
        return stored.published


@dataclass(frozen=True)
class Removal:
    """Takes the store's noise off images; those that are not ``expected`` to have noise are copied if they have none.

    ``published`` has the SHA-256 of every file with protected images, by its path.
    """

    store: NoiseStore
    expected: frozenset[str]
    published: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def _rules(self) -> NoiseRules:
        return NoiseRules(self.store)

    def flush(self) -> None:
        """Nothing is kept."""

    def edit(self, name: str, image: Array) -> Array:
        """The original image, or the same if it has no noise and need not have.

        Raises:
            LeftOutError: if it cannot be restored.
        """
        noise = self.store.get_protected(content_digest(image), image.shape)
        grey = one_channel(image) if noise is None else None
        if grey is not None and self.store.get_protected(content_digest(grey), grey.shape) is not None:
            return np.repeat(self.edit(name, grey), len(image), axis=0)
        if noise is None and name not in self.expected:
            return image
        if noise is None:
            raise LeftOutError(
                f"case {name!r} is not an image that {self.store.path} protected: was it changed or compressed after "
                "publishing, or is this the store of another data set?"
            )
        _require_type(noise, image, name)
        original = _moved(noise.remove, image)
        wrong = next(self._rules.noise_problems(original, image, noise.window), None)
        if wrong is not None:
            raise LeftOutError(f"case {name!r}: {wrong}, so {self.store.path} is not the store that protected it")
        return original

    def write(self, stored: StoredImage, root: Path, output: Path) -> None:
        """Write the original files of an image."""
        missing = [file for file in stored.files if not (root / file).exists()]
        if missing:
            raise LeftOutError(f"{missing[0]} is not in the copy: it was never published, or was removed")
        with opened_once():
            image = stored.read(root)
            original = self.edit(stored.name, image)
            if original is image:
                for file in stored.files:
                    copy_file(root / file, output / file)
                return
            self._require_place(stored, root)
            keepsake = self._keepsake(stored, root)
            stored.restore(root, output, original, keepsake)
        back = replace(stored, files=stored.originals(keepsake), copies=())
        if kept(self.store, header_key(content_digest(image), back.frame(output))) is None:
            for file in back.files:
                (output / file).unlink(missing_ok=True)
            raise LeftOutError(
                f"case {stored.name!r}: its header is not that of an original that was published with {self.store.path}: the copy was "
                "changed, or written by another program. Get the copy again from where it is whole"
            )

    def _require_place(self, stored: StoredImage, root: Path) -> None:
        """Refuse a protected image that stands where another one was published: it would get the label of that one."""
        for file in stored.files:
            found = file_sha256(root / file)
            if found != self.published.get(file) and found in self._contents:
                raise LeftOutError(
                    f"case {stored.name!r}: {file} is not as it was published, by the manifest: it has the name of another file. "
                    "Get the copy again from where it is whole"
                )

    @cached_property
    def _contents(self) -> frozenset[str]:
        return frozenset(self.published.values())

    def _keepsake(self, stored: StoredImage, root: Path) -> bytes | None:
        return kept(self.store, copy_key(root, stored.files))

    def finished(self, stored: StoredImage, root: Path, output: Path) -> bool:
        """Whether files that are there are all there is to an image."""
        return True

    def files(self, stored: StoredImage, root: Path) -> tuple[str, ...]:
        """The files that ``write`` writes."""
        if not all((root / file).is_file() for file in stored.files):
            return stored.files
        try:
            return stored.originals(self._keepsake(stored, root))
        except FormatError:  # told when the image is restored
            return stored.files


def _moved(move: Callable[[Array], Array], image: Array) -> Array:
    """The image with its noise put in or taken off; an image whose noise is not right costs no other image."""
    try:
        return move(image)
    except NoiseStoreError as error:
        raise LeftOutError(str(error)) from error


def _require_type(noise: Noise, image: Array, name: str) -> None:
    # Noise made on what a loader turned into floats fits the file if its steps are whole; otherwise integers lose it.
    if image.dtype.kind != "f" and noise.quantum != int(noise.quantum):
        raise LeftOutError(
            f"case {name!r} is stored as {image.dtype.name}, its noise was made for {noise.dtype}; generate it from these files"
        )


def _why_missing(store: NoiseStore, image: Array) -> str:
    if store.get_protected(content_digest(image)) is not None:
        return ", but a protected image of it is the same: the input is a protected copy already. Publish the original"
    orders = list(itertools.permutations(range(1, image.ndim)))[1:]  # the first is the image's own
    turned = (image.transpose(0, *order) for order in orders)
    if any(store.has_shape(other.shape) and content_digest(other) in store for other in turned):
        return (
            ", but with its spatial axes in another order it is: the reader that loaded it for the noise exchanged them. Generate "
            f"the noise again with {KEEP_AXES}, or from open_layout(path).dataset('train'), as images are stored"
        )
    if store.has_shape(image.shape):
        return ": its voxels are not those the noise was made for. Generate the noise again from this data set"
    return f": it has shape {image.shape}, the store has {store.shapes()}. Is this the data set the noise was made for?"
