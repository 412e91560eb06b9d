"""Protected copies of data sets: made, proved, and undone."""

from monai_salm.publish.checks import PublishError, check_publishable, require_outside_copies
from monai_salm.publish.copying import publish, restore
from monai_salm.publish.manifest import read_manifest
from monai_salm.publish.pairs import clean_test_cases, open_pair
from monai_salm.publish.planning import Plan, plan
from monai_salm.publish.statistics import noise_statistics
from monai_salm.publish.verifying import VerifyReport, verify
from monai_salm.publish.work import PublishReport

__all__ = [
    "Plan",
    "PublishError",
    "PublishReport",
    "VerifyReport",
    "check_publishable",
    "clean_test_cases",
    "noise_statistics",
    "open_pair",
    "plan",
    "publish",
    "read_manifest",
    "require_outside_copies",
    "restore",
    "verify",
]
