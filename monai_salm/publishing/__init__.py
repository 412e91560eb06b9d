"""Protected copies of data sets: made, proved, and undone."""

from monai_salm.publishing.copy_job import PublishReport
from monai_salm.publishing.copying import publish, restore
from monai_salm.publishing.manifest import clean_test_cases, open_pair, read_manifest
from monai_salm.publishing.planning import Plan, plan
from monai_salm.publishing.preconditions import PublishError, check_publishable, require_outside_copies
from monai_salm.publishing.signed_copy import verify_copy
from monai_salm.publishing.statistics import noise_statistics
from monai_salm.publishing.verifying import VerifyReport, verify

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
    "verify_copy",
]
