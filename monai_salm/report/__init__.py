"""Results of an evaluation and how they are shown; knows nothing of networks or data, so that ``evaluate`` can return them."""

from __future__ import annotations

from monai_salm.report.results import SCHEMA, UnlearnabilityReport

__all__ = ["SCHEMA", "UnlearnabilityReport"]
