"""Results of an evaluation and how they are shown; this wing needs no networks or data."""

from __future__ import annotations

from monai_salm.report.results import SCHEMA, UnlearnabilityReport

__all__ = ["SCHEMA", "UnlearnabilityReport"]
