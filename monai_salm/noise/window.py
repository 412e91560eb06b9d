"""Intensity windows: what one image shows as [0, 1], channel by channel, and the rules that choose it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast

import numpy as np

from monai_salm.noise.units import Units, shown
from monai_salm.shared.arrays import Array

if TYPE_CHECKING:
    import torch

# Values looked at for percentiles; larger channels are sampled at fixed random places.
_SAMPLE = 1 << 23
#: Hounsfield units of soft tissue, the range to which networks for the abdomen clip CT. Lungs and bone lie outside of it.
CT_WINDOW = (-160.0, 240.0)
# Air has -1000 HU; scanners fill what they did not measure with less.
_NO_HU = -1100.0


@dataclass(frozen=True)
class IntensityWindow:
    """The range of one image that networks see as [0, 1] and inside which noise may live, in stored units.

    As a rule for ``precompute``, it is the window of every image.

    Args:
        low: intensity shown as 0, one number or one for each channel.
        high: intensity shown as 1, one number or one for each channel.

    Raises:
        ValueError: if the bounds are not finite or not in order.
    """

    low: float | tuple[float, ...]
    high: float | tuple[float, ...]

    def __post_init__(self) -> None:
        lows, highs = _numbers(self.low), _numbers(self.high)
        if len(lows) != len(highs) or not all(
            -math.inf < low < high < math.inf for low, high in zip(lows, highs, strict=True)
        ):
            raise ValueError(f"window must be finite with low < high, got ({self.low}, {self.high})")
        # One pair of numbers for channels that are all alike, so that equal windows compare as equal.
        alike = len(set(zip(lows, highs, strict=True))) == 1
        object.__setattr__(self, "low", lows[0] if alike else lows)
        object.__setattr__(self, "high", highs[0] if alike else highs)

    @classmethod
    def of_channels(cls, pairs: Sequence[Sequence[float]]) -> IntensityWindow:
        """The window of these bounds, low and high of each channel."""
        return cls(tuple(low for low, _ in pairs), tuple(high for _, high in pairs))

    @property
    def width(self) -> float:
        """``high - low`` of the widest channel, in stored units."""
        return max(high - low for low, high in zip(_numbers(self.low), _numbers(self.high), strict=True))

    def channels(self, count: int) -> list[tuple[float, float]]:
        """The bounds of each of ``count`` channels; ValueError if the window is of another number of channels."""
        lows, highs = _numbers(self.low), _numbers(self.high)
        if len(lows) == 1:
            return [(lows[0], highs[0])] * max(1, count)
        if count != len(lows):
            raise ValueError(f"the window has {len(lows)} channels, the image has {count}: give one window for each")
        return list(zip(lows, highs, strict=True))

    def bounds(self, count: int, rank: int) -> tuple[Array, Array]:
        """Low and high as float64 arrays ``(channel, 1, ...)``, for an image of ``rank`` spatial axes."""
        pairs = np.asarray(self.channels(count), np.float64).reshape(-1, 2, *[1] * rank)
        return pairs[:, 0], pairs[:, 1]

    def normalize(self, image: torch.Tensor) -> torch.Tensor:
        """Map stored units to [0, 1], clipping what lies outside; NaN becomes 0. Differentiable in the closed window.

        The shape is ``(..., channel, *spatial)`` where channels differ, else any.
        """
        low, width = self._tensors(image)
        scaled: torch.Tensor = (image - low) / width
        if image.device.type == "cpu" and image.numel():  # mostly all is inside, and one look is cheaper
            least, largest = scaled.detach().aminmax()
            if float(least) >= 0 and float(largest) <= 1:
                return scaled
        inside = (scaled >= 0) & (scaled <= 1)
        # clamp alone has no gradient at 0 and 1 (torch 2.14), where black and saturated voxels lie: they would get no noise.
        clipped: torch.Tensor = scaled.where(inside, scaled.detach().nan_to_num(0.0).clamp(0.0, 1.0))
        return clipped

    def _tensors(self, image: torch.Tensor) -> tuple[Any, Any]:
        if isinstance(self.low, float) and isinstance(self.high, float):
            return self.low, self.high - self.low
        axis = next(axis for axis, size in enumerate(image.shape) if size == len(_numbers(self.low)))
        shape = [-1 if place == axis else 1 for place in range(image.ndim)]
        low, high = (image.new_tensor(_numbers(ends)).view(shape) for ends in (self.low, self.high))
        return low, high - low

    def of(self, image: Array, units: Units, padding: Array | None = None) -> IntensityWindow:
        """The window itself, for each image."""
        return self

    def spec(self) -> dict[str, Any]:
        """The rule as plain values."""
        return {"kind": "stored", "low": self.low, "high": self.high}


class WindowRule(Protocol):
    """Chooses the window of one image."""

    def of(self, image: Array, units: Units, padding: Array | None = None) -> IntensityWindow:
        """The window of stored numbers ``(channel, *spatial)``, padding (a boolean array of that shape) left out.

        ValueError if the image has no window by this rule.
        """

    def spec(self) -> dict[str, Any]:
        """The rule as plain values."""


@dataclass(frozen=True)
class FixedWindow:
    """The same real values for every image: Hounsfield units for CT, 0 to 255 for pictures of 8 bits.

    Args:
        low: real value shown as 0; ValueError if it is not below ``high``, or either is not finite.
        high: real value shown as 1.
    """

    low: float
    high: float
    kind: ClassVar[str] = "fixed"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"window must be finite with low < high, got ({self.low}, {self.high})")

    def of(self, image: Array, units: Units, padding: Array | None = None) -> IntensityWindow:
        ends = [[units.stored(end, channel) for end in (self.low, self.high)] for channel in range(len(image))]
        return IntensityWindow.of_channels([sorted(pair) for pair in ends])

    def spec(self) -> dict[str, Any]:
        return {"kind": self.kind, "low": float(self.low), "high": float(self.high)}


@dataclass(frozen=True)
class PercentileWindow:
    """Percentiles of each image and channel, padding left out.

    Args:
        low: percentile shown as 0, in [0, 100]; ValueError if it is not below ``high``.
        high: percentile shown as 1, in [0, 100].
    """

    low: float = 0.5
    high: float = 99.5
    kind: ClassVar[str] = "percentile"

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high <= 100:
            raise ValueError(f"percentiles must be in 0 to 100 with low < high, got ({self.low}, {self.high})")

    def of(self, image: Array, units: Units, padding: Array | None = None) -> IntensityWindow:
        hidden = [None] * len(image) if padding is None else padding
        return IntensityWindow.of_channels([self._channel(*pair) for pair in zip(image, hidden, strict=True)])

    def _channel(self, channel: Array, padding: Array | None) -> tuple[float, float]:
        values = _sampled(channel, padding)
        if not values.size:
            return 0.0, 1.0
        low, high = (float(value) for value in np.percentile(values.astype(np.float64), [self.low, self.high]))
        if low == high:  # nearly all voxels are alike: a few structures on a flat background
            low, high = float(values.min()), float(values.max())
        return (low, high) if low < high else (low, low + max(1.0, abs(low)))

    def spec(self) -> dict[str, Any]:
        return {"kind": self.kind, "low": float(self.low), "high": float(self.high)}


@dataclass(frozen=True)
class AutomaticWindow:
    """The rule by kind of image: pictures and MedMNIST of 8 bits 0 to 255, CT a fixed window in Hounsfield units, else percentiles.

    An image that is called CT and shows nothing darker than that window is no body in air, or was rescaled: percentiles.
    """

    kind: ClassVar[str] = "automatic"

    def of(self, image: Array, units: Units, padding: Array | None = None) -> IntensityWindow:
        rules = [chosen_rule(units, number, channel) for number, channel in enumerate(image)]
        return (rules[0] if len(set(rules)) == 1 else ChannelWindows(tuple(rules))).of(image, units, padding)

    def spec(self) -> dict[str, Any]:
        return {"kind": self.kind}


@dataclass(frozen=True)
class ChannelWindows:
    """A rule of its own for each channel, such as CT beside PET.

    Args:
        rules: one for each channel, in order.
    """

    rules: tuple[WindowRule, ...]

    def of(self, image: Array, units: Units, padding: Array | None = None) -> IntensityWindow:
        if len(image) != len(self.rules):
            raise ValueError(
                f"the image has {len(image)} channels, the window rule has {len(self.rules)}: give one rule each"
            )
        whole = [rule.of(image, units, padding).channels(len(image)) for rule in self.rules]
        return IntensityWindow.of_channels([channels[number] for number, channels in enumerate(whole)])

    def spec(self) -> dict[str, Any]:
        return {"kind": "channels", "rules": [rule.spec() for rule in self.rules]}


def window_rule(window: object) -> WindowRule:
    """The rule that was given: one, one for each channel, or None for the automatic one; TypeError for anything else."""
    if window is None:
        return AutomaticWindow()
    if isinstance(window, list | tuple) and window and all(hasattr(part, "of") for part in window):
        return ChannelWindows(tuple(window))
    if not hasattr(window, "of"):
        raise TypeError(
            "window must be FixedWindow(low, high), PercentileWindow(low, high), IntensityWindow(low, high), a list with one for "
            f"each channel, or None, got {window!r}"
        )
    return cast(WindowRule, window)


def chosen_rule(units: Units, number: int = 0, channel: Array | None = None) -> FixedWindow | PercentileWindow:
    """The rule that fits a channel of an image by its modality and type, and by its stored numbers if they are given."""
    if units.modality_of(number) == "CT" and (channel is None or _shows_air(channel, units, number)):
        return FixedWindow(*CT_WINDOW)
    return FixedWindow(0, 255) if units.picture else PercentileWindow()


def _shows_air(channel: Array, units: Units, number: int) -> bool:
    """Whether a channel goes below the window of CT, but for numbers that no tissue or air has."""
    least, most = sorted(units.stored(value, number) for value in (_NO_HU, CT_WINDOW[0]))
    return any(((values > least) & (values < most)).any() for values in shown(channel, None))


def _sampled(channel: Array, padding: Array | None) -> Array:
    """The values of a channel, padding left out; of a larger one those at fixed random places, in any order."""
    count = channel.size if padding is None else int(np.count_nonzero(~padding))
    if count <= _SAMPLE:
        return (channel if padding is None else channel[~padding]).reshape(-1)
    places = np.random.default_rng(0).integers(0, count, _SAMPLE)
    if padding is None:
        return np.ascontiguousarray(channel).reshape(-1)[places]
    places.sort()
    found, seen = list[Array](), 0
    for values in shown(channel, padding):  # a copy of all that count would be as large as the volume
        first, last = np.searchsorted(places, (seen, seen + values.size))
        found.append(values[places[first:last] - seen])
        seen += values.size
    return np.concatenate(found)


def rule_from_spec(spec: Mapping[str, Any]) -> WindowRule:
    """The rule that ``spec`` describes; KeyError, TypeError or ValueError if it describes none."""
    kind = spec["kind"]
    if kind == "channels":
        return ChannelWindows(tuple(rule_from_spec(rule) for rule in spec["rules"]))
    if kind == "automatic":
        return AutomaticWindow()
    kinds: dict[str, Any] = {"stored": IntensityWindow, "percentile": PercentileWindow, "fixed": FixedWindow}
    if kind not in kinds:
        raise ValueError(f"unknown kind of window {kind!r}")
    ends = (tuple(spec[name]) if isinstance(spec[name], list) else spec[name] for name in ("low", "high"))
    return cast(WindowRule, kinds[kind](*ends))


def _numbers(value: float | Sequence[float]) -> tuple[float, ...]:
    return tuple(float(v) for v in value) if isinstance(value, Sequence) else (float(value),)
