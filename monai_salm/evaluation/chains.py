"""The transforms around ``SALMProtectd`` in a MONAI chain, and the share of the noise that is left after each."""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Randomizable

from monai_salm.noise.noise import Noise
from monai_salm.shared.arrays import Array
from monai_salm.shared.images import like, values_of
from monai_salm.store.store import NoiseStore, NoiseStoreError
from monai_salm.transforms import SALMProtect, SALMProtectd

# Transforms that hand on the values and axes of an image as they were loaded.
_HARMLESS = ("LoadImage", "EnsureChannelFirst", "EnsureType", "ToTensor", "ToNumpy", "ToDevice", "Identity")
# Steps that leave this share count as harmless.
_LITTLE = 0.98
_WEAK = 0.5
_SEED = 0


@dataclass(frozen=True)
class ChainStep:
    """A transform after ``SALMProtectd``."""

    name: str
    effect: str  # on the noise, in words
    survives: float | None  # share of the noise's amplitude that is left; None where the step could not be run
    chance: bool = False  # applied at random; ``survives`` holds for the times that it is applied

    def __str__(self) -> str:
        when = " (when it is applied)" if self.chance else ""
        return f"{self.name}: {self.effect}" + ("" if self.survives is None else f", {self.survives:.0%} left{when}")


@dataclass(frozen=True)
class ChainReport:
    """The result of ``check_chain``.

    Args:
        before: transforms between the loader and ``SALMProtectd`` that may change values or axes: there should be none.
        steps: the transforms after it.
        images: number of images that were tried.
        made_up: whether these were synthetic.
    """

    before: tuple[str, ...]
    steps: tuple[ChainStep, ...]
    images: int
    made_up: bool

    @property
    def survives(self) -> float:
        """Share of the noise that is left after all steps that are always applied."""
        return float(np.prod([step.survives for step in self.steps if step.survives is not None and not step.chance]))

    @property
    def ok(self) -> bool:
        """Whether the order is right, all steps could be run, and half of the noise is left after each and after all."""
        each = [self.survives, *(step.survives for step in self.steps)]
        return not self.before and all(share is not None and share >= _WEAK for share in each)

    def __str__(self) -> str:
        lines = []
        if self.before:
            lines.append(
                f"SALMProtectd stands after {', '.join(self.before)}: images may not be found, or get noise that their files have "
                "not. Place it right after LoadImaged"
            )
        kind = "made-up images (give items for real ones)" if self.made_up else "images"
        lines.append(f"After SALMProtectd, on {self.images} {kind}:")
        lines += [f"  {step}" for step in self.steps] or ["  nothing"]
        partly = ", by the steps that could be run" if any(step.survives is None for step in self.steps) else ""
        lines.append(f"  {self.survives:.0%} of the noise is left at the end{partly}")
        return "\n".join(lines)


@dataclass(frozen=True)
class _States:
    """One image clean, with its noise, and with a coarse pattern: ``items`` of a chain; ``key`` is None for bare images."""

    items: Sequence[Any]
    key: Hashable | None

    def arrays(self) -> list[Array]:
        return [_array(item, self.key) for item in self.items]

    def after(self, transform: Any) -> _States:
        """The states after a transform with the same random numbers."""
        results = [_certain(transform)(item if self.key is None else dict(item)) for item in self.items]
        return _States([result[0] if isinstance(result, list) else result for result in results], self.key)


def _array(item: Any, key: Hashable | None) -> Array:
    return np.asarray(values_of(item if key is None else item[key]), np.float64)


def check_chain(
    chain: Compose | Sequence[Any],
    store: NoiseStore | str | Path,
    items: Sequence[Any] | None = None,
    *,
    count: int = 3,
) -> ChainReport:
    """Measure how much of the noise survives each transform after ``SALMProtectd`` in a chain.

    Each transform after it is run on a few images without noise, with it, and with a coarse pattern of the same strength.
    Scaling and cropping change both alike. Resampling and smoothing weaken the noise more than the pattern; clipping removes
    noise.

    Args:
        chain: the transforms, with ``SALMProtectd`` or ``SALMProtect`` among them.
        store: the noise.
        items: a few of the data set's items, as the chain takes them; None for synthetic images with the noise of the store.
        count: how many are tried.

    Returns:
        The report; ``print`` shows it.

    Raises:
        ValueError: if the chain has no ``SALMProtectd``.
        NoiseStoreError: if the store cannot be read, or is empty and no items are given.
    """
    noises = store if isinstance(store, NoiseStore) else NoiseStore(store)
    transforms = _flat(chain)
    places = [place for place, one in enumerate(transforms) if isinstance(one, SALMProtect | SALMProtectd)]
    if not places:
        raise ValueError(
            "the chain has no SALMProtectd: place it right after LoadImaged, as Compose([LoadImaged(...), SALMProtectd(...)])"
        )
    head, protect, rest = transforms[: places[0]], transforms[places[0]], transforms[places[0] + 1 :]
    before = tuple(_name(one) for one in head if _may_change(one, protect))
    if items is None:
        pairs = [_made_up(noise, protect, transforms, noises) for noise in itertools.islice(noises, count)]
        if not pairs:
            raise NoiseStoreError(f"{noises.path} is empty: fill it with precompute() or `monai-salm generate`")
    else:
        clean = [functools.reduce(lambda x, one: one(x), head, item) for item in itertools.islice(items, count)]
        pairs = [(item, protect(item)) for item in clean]
    key = protect.keys[0] if isinstance(protect, SALMProtectd) else None
    states = [_with_pattern(*pair, key) for pair in pairs]
    return ChainReport(before, tuple(_steps(rest, states)), len(states), items is None)


def _flat(chain: Any) -> list[Any]:
    """The transforms in order, nested chains unfolded; choices such as ``OneOf`` stay whole."""
    if type(chain) is Compose or isinstance(chain, list | tuple):
        parts = chain.transforms if isinstance(chain, Compose) else chain
        return [one for part in parts for one in _flat(part)]
    return [chain]


def _name(transform: Any) -> str:
    return str(getattr(transform, "__name__", type(transform).__name__))


def _may_change(transform: Any, protect: Any) -> bool:
    """Whether a transform may change the images that are protected."""
    keys = set(getattr(transform, "keys", ()) or ())
    others = keys and isinstance(protect, SALMProtectd) and not keys & set(protect.keys)
    return not others and not {_name(transform), _name(transform).removesuffix("d")} & set(_HARMLESS)


def _steps(transforms: Sequence[Any], states: Sequence[_States]) -> Iterator[ChainStep]:
    """One step for each transform; the result of a random one is not passed on."""
    for transform in transforms:
        prob = getattr(transform, "prob", None)
        chance = isinstance(prob, int | float) and prob < 1
        try:
            after = [state.after(transform) for state in states]
            found = [_compared(state.arrays(), new.arrays()) for state, new in zip(states, after, strict=True)]
        except Exception as error:
            reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            yield ChainStep(_name(transform), f"could not be run here ({reason})", None, chance)
            continue
        shares, effects = zip(*found, strict=True)
        yield ChainStep(_name(transform), max(effects, key=effects.count), float(np.mean(shares)), chance)
        states = states if chance else after


def _compared(before: list[Array], after: list[Array]) -> tuple[float, str]:
    """Share of the noise that a step leaves, and its effect."""
    (clean, noisy, pattern), (new_clean, new_noisy, new_pattern) = before, after
    old, new = noisy - clean, new_noisy - new_clean
    if not old.any():
        return 0.0, "finds no noise"
    if not new.any():
        return 0.0, "takes all noise away"
    reference = _energy(new_pattern - new_clean) / (_energy(pattern - clean) or 1.0)
    share = np.sqrt(_energy(new) / _energy(old) / reference) if reference else 1.0
    same = clean.shape == new_clean.shape
    moved = not same or bool((new[old == 0] != 0).any())
    kept = 1.0 if moved else np.sqrt(_energy(old[new != 0]) / _energy(old))  # else value by value
    if kept < _LITTLE:
        return float(min(1.0, share) * kept), "clips"
    if share < _LITTLE:
        return float(share), "smooths or resamples" if same else "resamples"
    return 1.0, "keeps the noise" if same else "crops, pads or turns"


def _energy(values: Array) -> float:
    return float(np.square(values, dtype=np.float64).sum())


def _certain(transform: Any) -> Any:
    """A copy of a transform that is always applied, with the same random numbers."""
    own = copy.deepcopy(transform)
    if isinstance(own, Randomizable):
        own.set_random_state(seed=_SEED)
    for part in (own, *vars(own).values()):  # dictionary transforms hold the transform of arrays
        if isinstance(getattr(part, "prob", None), int | float):
            part.prob = 1.0
    return own


def _made_up(noise: Noise, protect: Any, transforms: Sequence[Any], store: NoiseStore) -> tuple[Any, Any]:
    """A synthetic ramp in the middle of the window, without and with noise."""
    shape = noise.codes.shape
    low, high = noise.window.bounds(shape[0], len(shape) - 1)
    ramps = [np.linspace(0.3, 0.7, size) for size in shape[1:]]
    ramp = np.mean(np.meshgrid(*ramps, indexing="ij"), axis=0)[None]
    clean = (low + (high - low) * ramp).astype(np.float32)
    noisy = (clean + noise.codes * noise.quantum).astype(np.float32)
    images = [MetaTensor(torch.from_numpy(values)) for values in (clean, noisy)]
    if not isinstance(protect, SALMProtectd):
        return images[0], images[1]
    keys = {key for one in transforms for key in _keys_of(one)}
    label: Any = 0
    mapped = any(getattr(one, "label_key", None) is not None for one in transforms if one is not protect)
    if mapped or store.meta.get("task", {}).get("kind") != "classification":
        label = MetaTensor(torch.from_numpy((ramp > np.median(ramp)).astype(np.uint8)))
    others = {key: label for key in keys if key not in protect.keys}
    first, second = ({**others, **dict.fromkeys(protect.keys, image)} for image in images)
    return first, second


def _keys_of(transform: Any) -> Iterator[Hashable]:
    yield from getattr(transform, "keys", None) or ()
    for name in ("label_key", "image_key", "source_key"):
        if getattr(transform, name, None) is not None:
            yield getattr(transform, name)


def _with_pattern(clean: Any, noisy: Any, key: Hashable | None) -> _States:
    """The states of an image; the coarse pattern is on the grey values that carry noise."""
    before, after = _array(clean, key), _array(noisy, key)
    noise = after - before
    carrying = before[noise != 0]
    inside = (before >= carrying.min()) & (before <= carrying.max()) if carrying.size else np.zeros(before.shape, bool)
    axes = [np.cos(4 * np.pi * np.arange(size) / size + 0.5) for size in before.shape[1:]]
    wave = np.mean(np.meshgrid(*axes, indexing="ij"), axis=0)[None] * inside
    strength = np.sqrt(_energy(noise) / (_energy(wave) or 1.0))
    pattern = like(clean if key is None else clean[key], (before + wave * strength).astype(np.float32))
    return _States((clean, noisy, pattern if key is None else {**clean, key: pattern}), key)
