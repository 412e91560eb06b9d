"""What verify holds every protected image to, measured on the two images alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from monai_salm.generate.precompute import precompute
from monai_salm.learning.tasks import Classification
from monai_salm.methods import RandomNoise
from monai_salm.noise.window import IntensityWindow
from monai_salm.publishing.noise_rules import NoiseRules


@pytest.fixture
def rules(tmp_path: Path) -> NoiseRules:
    rng = np.random.default_rng(0)
    items = [
        {"image": rng.random((1, 8, 8), np.float32), "label": number % 2, "name": str(number)} for number in range(4)
    ]
    method = RandomNoise(epsilon=0.1)
    return NoiseRules(
        precompute(items, tmp_path / "n.db", method=method, task=Classification(num_classes=2), device="cpu")
    )


@pytest.mark.parametrize("filling", [0.5, np.nan, -3.4e38, np.inf])
@pytest.mark.parametrize(("noise", "found"), [(0.09, False), (0.4, True)])
def test_noise_beyond_epsilon_is_found_whatever_fills_the_rest(
    rules: NoiseRules, filling: float, noise: float, found: bool
) -> None:
    before = np.full((1, 8, 8), filling, np.float32)
    before[0, 2:6, 2:6] = 0.3
    after = before.copy()
    after[0, 3, 3] += np.float32(noise)
    problems = list(rules.noise_problems(before, after, IntensityWindow(0, 1)))
    assert any("exceeds epsilon" in problem for problem in problems) == found
