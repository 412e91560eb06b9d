"""MONAI transforms that put a store's noise into images, and take it off again for those who have the store.

They stand right after loading, before anything that resamples, rescales or is random: an image is known by its values. Axes that
a reader exchanges, real values that it makes of stored numbers, and grey images that it shows as RGB are understood.
They are no ``InvertibleTransform``: ``Compose.inverse`` and ``Invertd`` pass predictions and masks by.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

from monai.config import KeysCollection
from monai.transforms import MapTransform, Transform
from monai.utils import TransformBackends

from monai_salm.noise.digest import content_digest
from monai_salm.noise.noise import Noise, NoiseStoreError
from monai_salm.noise.units import Units, units_given
from monai_salm.shared.arrays import Array
from monai_salm.shared.images import Image, applied_to, file_of, like, same_values, values_of
from monai_salm.shared.warn import warn
from monai_salm.store.as_loaded import find_as_loaded
from monai_salm.store.file import open_reader
from monai_salm.store.lookup import Lookup, not_found
from monai_salm.store.store import NoiseStore

_ON_MISSING = ("raise", "generate")
# What MONAI records of an image without its values having changed.
_KEEP_VALUES = ("Flip", "Orientation", "Rotate90", "SqueezeDim", "Transpose", "ToDevice")


class SALMProtect(Transform):
    """Add an image's noise, found in a store by the image's values.

    Args:
        store: a noise store or its path.
        on_missing: ``"raise"`` an error for an image that is not in the store, or ``"generate"`` its noise against the
            surrogates kept there (slow: networks run), which then joins the store.

    Raises:
        NoiseStoreError: if there is no file at the path.
        ValueError: for another ``on_missing``.
    """

    backend = [TransformBackends.TORCH, TransformBackends.NUMPY]  # noqa: RUF012 - as MONAI declares it

    def __init__(self, store: NoiseStore | str | os.PathLike[str], on_missing: str = "raise") -> None:
        if on_missing not in _ON_MISSING:
            raise ValueError(f"on_missing must be one of {_ON_MISSING}, got {on_missing!r}")
        self.store = _as_store(store)
        self.on_missing = on_missing
        self._warned = False

    def __repr__(self) -> str:
        return _shown(self, self.store)

    def __call__(self, image: Image, label: object = None, name: str = "") -> Image:
        """Return a protected copy; the image itself is not changed.

        Args:
            image: ``(channel, *spatial)``, the values that the noise was made for, in any type that holds the result
                exactly. NumPy array, tensor or ``MetaTensor``.
            label: for ``on_missing="generate"``.
            name: the case, for messages; by default the file that a ``MetaTensor`` was loaded from.

        Returns:
            The same kind of object: type, device, metadata and record of transforms kept.

        Raises:
            ImageNotFoundError: if the store has no noise for the image; the message says the likely cause.
            NoiseStoreError: if the store cannot be read or the noise cannot be applied.
            DataError, LabelError: if a new image or its label do not fit the store.
        """
        return self._protected(image, label, name, None)

    def _protected(self, image: Image, label: object, name: str, units: Units | None) -> Image:
        values = values_of(image)
        digest = content_digest(values)
        noise = self.store.get(digest, values.shape)
        found = find_as_loaded(self.store, values) if noise is None else None
        if found is not None:
            protected = found.protect(values)
            unchanged = same_values(protected, values)
        else:
            noise = noise or self._of_unknown(image, values, label, name, units)
            protected = noise.apply(values, known=noise.digest == digest)
            unchanged = noise.protected == noise.digest
        # Nothing may ever pass unprotected in silence. Where the image is as it is stored, the digests are those of both images.
        if unchanged:
            where = _lookup(self.store, image, values, name).where
            raise NoiseStoreError(f"{where}: its noise in {self.store.path} changes nothing; generate it again")
        self._warn_of_place(image, ["division by 255"] if found is not None and found.divided else [])
        return like(image, protected)

    def _of_unknown(self, image: object, values: Array, label: object, name: str, units: Units | None) -> Noise:
        lookup = _lookup(self.store, image, values, name)
        if self.on_missing == "raise":
            raise not_found(lookup)
        return self._generate(lookup, label, image, units)

    def _warn_of_place(self, image: object, changes: list[str]) -> None:
        """Say once that something before may change values of other images, though it left these as they were."""
        changing = changes + [name for name in applied_to(image) if name.removeprefix("Rand") not in _KEEP_VALUES]
        if changing and not self._warned:
            self._warned = True
            warn(
                f"SALMProtectd stands after {', '.join(dict.fromkeys(changing))}, which may change values: it finds images by "
                "their values, as they are stored. Place it right after LoadImaged; check_chain() shows a chain's order"
            )

    def _generate(self, lookup: Lookup, label: object, loaded: object, units: Units | None) -> Noise:
        # Methods and networks are imported only where noise is made.
        from monai_salm.data.scan import DataError, units_of
        from monai_salm.generate.new_images import generate_noise

        chance = [name for name in lookup.applied if name.startswith("Rand")]
        if chance:  # it would be another new image each time
            raise DataError(
                f"{lookup.where} was changed at random before: {', '.join(chance)}. Place SALMProtectd before that"
            )
        name = lookup.name or content_digest(lookup.image).hex()[:12]
        return generate_noise(self.store, lookup.image, label, name, units=units or units_of(lookup.image, loaded))


class SALMRestore(Transform):
    """Take the noise off a protected image: the original bit for bit.

    Args:
        store: the noise store that protected it, or its path.

    Raises:
        NoiseStoreError: if there is no file at the path.
    """

    backend = [TransformBackends.TORCH, TransformBackends.NUMPY]  # noqa: RUF012 - as MONAI declares it

    def __init__(self, store: NoiseStore | str | os.PathLike[str]) -> None:
        self.store = _as_store(store)

    def __repr__(self) -> str:
        return _shown(self, self.store)

    def __call__(self, image: Image, name: str = "") -> Image:
        """Return the original; the protected image itself is not changed.

        Args:
            image: the protected image, as for ``SALMProtect``.
            name: the case, for messages.

        Raises:
            ImageNotFoundError: if the store did not protect the image; the message says the likely cause.
            NoiseStoreError: if the store cannot be read or what it gives is not the original.
        """
        values = values_of(image)
        noise = self.store.get_protected(content_digest(values), values.shape)
        if noise is not None:
            return like(image, noise.remove(values, known=True))
        found = find_as_loaded(self.store, values, protected=True)
        if found is None:
            raise not_found(_lookup(self.store, image, values, name, protected=True))
        return like(image, found.restore(values))


class SALMProtectd(MapTransform):
    """Dictionary version of ``SALMProtect``.

    Args:
        keys: of the images.
        store: a noise store or its path.
        label_key: key of the label; needed for ``on_missing="generate"``.
        on_missing: ``"raise"`` or ``"generate"``, as for ``SALMProtect``.
        allow_missing_keys: pass by keys that an item does not have.

    Raises:
        NoiseStoreError: if there is no file at the path.
        ValueError: for another ``on_missing``, or ``"generate"`` without ``label_key``.
    """

    backend = SALMProtect.backend

    def __init__(
        self,
        keys: KeysCollection,
        store: NoiseStore | str | os.PathLike[str],
        label_key: Hashable | None = None,
        on_missing: str = "raise",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.protect = SALMProtect(store, on_missing)
        if on_missing == "generate" and label_key is None:
            raise ValueError('on_missing="generate" makes noise for a label: label_key must be given, got None')
        self.label_key = label_key

    def __repr__(self) -> str:
        return _shown(self, self.protect.store, keys=self.keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Protect the images of an item; other keys are passed on."""
        item = dict(data)
        _require_keys(self, item)
        label = None if self.label_key is None else item.get(self.label_key)
        for key in self.key_iterator(item):
            item[key] = self.protect._protected(item[key], label, _name_of(data), units_given(item))
        return item


class SALMRestored(MapTransform):
    """Dictionary version of ``SALMRestore``.

    Args:
        keys: of the images.
        store: the noise store that protected them, or its path.
        allow_missing_keys: pass by keys that an item does not have.

    Raises:
        NoiseStoreError: if there is no file at the path.
    """

    backend = SALMRestore.backend

    def __init__(
        self, keys: KeysCollection, store: NoiseStore | str | os.PathLike[str], allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.restore = SALMRestore(store)

    def __repr__(self) -> str:
        return _shown(self, self.restore.store, keys=self.keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Restore the images of an item; other keys are passed on."""
        item = dict(data)
        _require_keys(self, item)
        for key in self.key_iterator(item):
            item[key] = self.restore(item[key], _name_of(data))
        return item


def _as_store(store: NoiseStore | str | os.PathLike[str]) -> NoiseStore:
    if isinstance(store, NoiseStore):
        return store
    if not isinstance(store, str | os.PathLike):
        raise TypeError(f"store must be a NoiseStore or the path of one, got {store!r}")
    open_reader(Path(store)).close()  # what is no store is told where the chain is built
    return NoiseStore(store)


def _require_keys(transform: MapTransform, item: Mapping[Hashable, Any]) -> None:
    """As MONAI's ``key_iterator`` does, but the message names the keys that are there."""
    missing = [] if transform.allow_missing_keys else [key for key in transform.keys if key not in item]
    if missing:
        case = f"case {_name_of(item)!r}" if "name" in item else "an item"
        raise KeyError(
            f"{transform}: {case} has no key {missing[0]!r}; its keys are {sorted(map(str, item))}. Correct keys, or set "
            "allow_missing_keys=True"
        )


def _shown(transform: Transform, store: NoiseStore, **settings: object) -> str:
    """How a transform looks in MONAI's error messages, which say which one failed."""
    parts = [f"{name}={value!r}" for name, value in {**settings, "store": str(store.path)}.items()]
    return f"{type(transform).__name__}({', '.join(parts)})"


def _name_of(item: Mapping[Hashable, Any]) -> str:
    return str(item["name"]) if "name" in item else ""


def _lookup(store: NoiseStore, image: object, values: Array, name: str, protected: bool = False) -> Lookup:
    return Lookup(store, values, name or file_of(image), applied_to(image), protected)


SALMProtectD = SALMProtectDict = SALMProtectd
SALMRestoreD = SALMRestoreDict = SALMRestored
