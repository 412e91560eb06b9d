"""Protected copies of data sets: made, proved, and undone."""

from monai_salm.publish.checks import PublishError, check_publishable
from monai_salm.publish.copying import PublishReport, publish, restore
from monai_salm.publish.manifest import read_manifest
from monai_salm.publish.statistics import noise_statistics
from monai_salm.publish.verifying import VerifyReport, verify

__all__ = [
    "PublishError",
    "PublishReport",
    "VerifyReport",
    "check_publishable",
    "noise_statistics",
    "publish",
    "read_manifest",
    "restore",
    "verify",
]
