"""A report of made-up cells."""

from __future__ import annotations

from typing import Any

import numpy as np

from monai_salm.report.disk import UnlearnabilityReport


def cell(
    victim: str, data: str, last: float, seed: int = 0, countermeasure: str = "none", train: float = 0.99
) -> dict[str, Any]:
    return {
        "victim": victim,
        "seed": seed,
        "data": data,
        "countermeasure": countermeasure,
        "augment": "none",
        "fraction": 1.0,
        "metric": "accuracy",
        "last": last,
        "peak": min(1.0, last + 0.05),
        "train_score": train,
        "scores": {"accuracy": last, "auc": float("nan")},
        "curve": [0.2, last],
        "train_curve": [0.3, train],
    }


def make_report(protected: float = 0.15, shape: tuple[int, ...] = (1, 8, 8), **settings: Any) -> UnlearnabilityReport:
    scores = {"clean": 0.9, "random_noise": 0.88, "protected": protected}
    rng = np.random.default_rng(0)
    image = rng.integers(8, 248, shape).astype(np.uint8)
    values: dict[str, Any] = {
        "metric": "accuracy",
        "chance": 0.125,
        "majority": 0.13,
        "guessing": 0.125,
        "seconds": 12.5,
        "noise": {"linf": 8 / 255, "psnr": 32.0, "support": 0.9},
        "protocol": {"epochs": 2, "augment": "none", "epsilon": 8 / 255, "surrogate": None, "window": [0, 255]},
        "cells": [
            cell(v, d, s + seed / 50, seed) for v in ("resnet18", "vgg11") for d, s in scores.items() for seed in (0, 1)
        ],
        "pictures": [("case 1", image, (image + 8 * rng.choice([-1, 1], shape)).astype(np.uint8))],
    }
    return UnlearnabilityReport(**{**values, **settings})
