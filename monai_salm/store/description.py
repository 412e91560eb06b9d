"""What a store says of its noise: read from a text that may be damaged or hostile."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from monai_salm.noise.window import WindowRule, rule_from_spec
from monai_salm.store.file import damaged
from monai_salm.store.rows import checksum
from monai_salm.store.seal import Sealed


@dataclass(frozen=True)
class StoreSettings:
    """What the noise of a store keeps to, by its description.

    Args:
        window: the rule that chose each image's window.
        epsilon: budget, as a fraction of the window's width.
        method: the settings of the noise method, as plain values.
        mask_share: largest share of an image's elements that its noise may touch.
    """

    window: WindowRule
    epsilon: float
    method: dict[str, Any]
    mask_share: float


def read_description(store: Sealed) -> dict[str, Any]:
    """The description of a store; NoiseStoreError if it cannot be read."""
    rows = store.rows("SELECT json, checksum FROM meta")
    try:
        if len(rows) != 1 or rows[0][1] != checksum(rows[0][0]):
            raise ValueError("checksum")
        meta = json.loads(rows[0][0])
    except (ValueError, TypeError, RecursionError) as error:
        raise damaged(store.path, "its description does not match its checksum") from error
    if not isinstance(meta, dict):
        raise damaged(store.path, "its description is not a dictionary")
    return meta


def settings_of(store: Sealed) -> StoreSettings:
    """What every image's noise keeps to; NoiseStoreError if the description lacks something."""
    meta = read_description(store)
    try:
        rule, epsilon, method = rule_from_spec(meta["window"]), float(meta["epsilon"]), meta["method"]
        share = float(meta["mask_share"])
        if not 0 < epsilon <= 1 or not 0 < share <= 1:
            raise ValueError(f"epsilon {epsilon}, mask_share {share}")
        if not isinstance(method, dict) or not isinstance(method.get("name"), str):
            raise TypeError("method")
        return StoreSettings(rule, epsilon, method, share)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise damaged(store.path, f"its description is not complete ({str(error)[:200]!r})") from error


def skipped_of(store: Sealed) -> dict[str, str]:
    """The cases that were left out when the noise was made, with the reasons; NoiseStoreError if they cannot be read."""
    try:
        return {str(case["name"]): str(case["reason"]) for case in read_description(store).get("skipped", [])}
    except (KeyError, TypeError) as error:
        raise damaged(store.path, "its description of the cases that were left out cannot be read") from error


def spec_of(text: str) -> dict[str, Any]:
    """The arguments of ``build_network`` from their JSON text; TypeError or ValueError if they are none."""
    spec = json.loads(text)
    if not isinstance(spec, dict) or not isinstance(spec.get("name"), str):
        raise TypeError("spec")
    return spec
