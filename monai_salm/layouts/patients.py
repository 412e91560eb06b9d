"""Folders of patients and of sites, which are no classes: told by their names and by what recurs in them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from monai_salm.layouts.images import stem
from monai_salm.layouts.roles import role_of

# Names with numbers that are classes: grade 1 to 4, BI-RADS 0 to 6.
_CLASS_WORDS = re.compile(
    r"(grade|class|stage|type|level|label|category|cat|kl|bi-?rads|ti-?rads|pi-?rads|score|cls|c|g|t|n|m|group|cdr|degree)[\W_]*\d{1,2}"
)
_SITE = re.compile(
    r"(site|hospital|cent(er|re)|clinic|institut\w*|scanner|vendor|cohort|batch|fold|part|source|dataset|data|set|lab)[\W_]*\w{0,3}"
)
_FINDINGS = frozenset((
    "benign", "malignant", "normal", "abnormal", "healthy", "control", "positive", "negative", "pos", "neg", "yes", "no",
    "tumor", "tumour", "cancer", "sick", "ill", "disease", "ok", "bad", "good", "ad", "cn", "mci", "covid",
))  # fmt: skip
# Fewer folders may be classes whose names happen to hold numbers.
_MANY = 10
_FEW_ROLES = 12
# A few folders lack a file or hold one more.
_MOSTLY = 0.75


def why_patients(folders: Mapping[str, Sequence[str]]) -> str | None:
    """Why folders are those of patients or studies and not of classes; None if they may be classes."""
    count, images = len(folders), sum(map(len, folders.values()))
    some = ", ".join(sorted(folders)[:3])
    if count >= 5 and images < 1.5 * count:
        return f"{count} folders ({some}, ...) hold {images} images: with nearly a folder for each image, folders are no classes"
    if count < 2 or not are_identifiers(list(folders)):
        return None
    # The names of a folder's images, without that of the folder.
    names = ({PurePosixPath(file).name.replace(name, "") for file in files} for name, files in folders.items())
    roles = Counter(role for own in names for role in own)
    usual = sorted(role for role, found in roles.items() if found >= max(2, count / 2))
    if 0 < len(usual) <= _FEW_ROLES and sum(roles[role] for role in usual) >= _MOSTLY * roles.total():
        shown = ", ".join(usual[:3])
        return f"its folders ({some}, ...) are named like patients, and most hold the same names ({shown})"
    if all(stem(file).startswith(name) for name, files in folders.items() for file in files):
        return f"its folders ({some}, ...) are named like patients, and the names of their images begin so, too"
    if count >= _MANY:
        return f"its {count} folders ({some}, ...) are named like patients"
    return None


def are_identifiers(names: Sequence[str]) -> bool:
    """Whether names differ in their numbers alone, and are not those of numbered classes."""
    if any(_CLASS_WORDS.fullmatch(name.casefold()) or re.fullmatch(r"\d{1,2}", name) for name in names):
        return False
    forms = {re.sub(r"\d+", "#", name.casefold()) for name in names}
    return all("#" in form for form in forms) and len(forms) <= max(1, len(names) // 3)


def inner_classes(folders: Mapping[str, Sequence[tuple[str, ...]]]) -> bool | None:
    """Whether folders are sites or patients with a folder for each class in them; None if both are as likely.

    ``folders`` has the paths of each one's images below it.
    """
    inside = [{place[0] for place in places if len(place) > 1} for places in folders.values()]
    if len(folders) < 2 or any(len(place) < 2 for places in folders.values() for place in places):
        return False
    counts = Counter(name for names in inside for name in names)
    shared = [name for name, count in counts.items() if count > 1]
    if len(counts) < 2 or len(shared) < len(counts) / 2 or are_identifiers(list(counts)):
        return False
    outer, inner = {name.casefold() for name in folders}, {name.casefold() for name in counts}
    findings = inner <= _FINDINGS or all(re.fullmatch(r"\d", name) or _CLASS_WORDS.fullmatch(name) for name in inner)
    if all(_SITE.fullmatch(name) for name in outer) or (are_identifiers(list(folders)) and findings):
        return True
    known = outer <= _FINDINGS or any(role_of(f"{name}/x").words or role_of(f"{name}.x").words for name in inner)
    return False if known or len(set(map(frozenset, inside))) > 1 else None
