"""Prove a protected copy from its files: their content, files that are missing or added, and that the noise comes off again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np

from monai_salm.formats.base import FormatError, opened_once
from monai_salm.layouts import TRAIN, Case, Layout, LayoutError, MedMNIST, open_layout
from monai_salm.layouts.stored_images import StoredImage
from monai_salm.noise.digest import content_digest
from monai_salm.publishing.copy_records import copy_key, header_key, key_of_digests, record_of, record_problems
from monai_salm.publishing.copying import as_store
from monai_salm.publishing.manifest import PathLike, manifest_problems, own_files, read_manifest
from monai_salm.publishing.noise_rules import NoiseRules
from monai_salm.publishing.other_files import OtherFiles, other_files
from monai_salm.publishing.preconditions import PublishError
from monai_salm.publishing.searching import find_unprotected, in_threads
from monai_salm.publishing.signing import signature_problem
from monai_salm.shared.files import file_sha256, same_bytes
from monai_salm.shared.progress import Progress, ProgressCallback
from monai_salm.store.records import kept
from monai_salm.store.seal import require_owner
from monai_salm.store.store import NoiseStore


@dataclass(frozen=True)
class VerifyReport:
    """What ``verify`` found.

    Args:
        checked: cases that were compared.
        problems: one line for everything that is wrong; empty if all is as promised.
        left_out: images that are not in the copy, as ``publish`` said when it wrote it, with the reasons.
        partial: whether other calls compare the rest.
    """

    checked: int
    problems: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    partial: bool = False

    @property
    def sound(self) -> bool:
        """Whether something was checked and what is in the copy is as it should be."""
        return (self.checked > 0 or self.partial) and not self.problems

    @property
    def ok(self) -> bool:
        """Whether the copy is sound and nothing was left out of it."""
        return self.sound and not self.left_out

    def require(self) -> None:
        """Go on only with a copy that is as it should be, and whole.

        Raises:
            PublishError: for any other, with what is wrong, a line each.
        """
        if not self.ok:
            left_out = [f"{name} was left out: {why}" for name, why in self.left_out.items()]
            found = self.problems or left_out or ["nothing was checked"]
            raise PublishError("\n".join(["the protected copy is not what it should be:", *found]))


def verify(
    source: PathLike,
    output: PathLike,
    store: NoiseStore | PathLike,
    *,
    layout: str | None = None,
    jobs: int = 1,
    shard: tuple[int, int] = (0, 1),
    signer: PathLike | None = None,
    progress: ProgressCallback | None = None,
) -> VerifyReport:
    """Compare a protected copy with its original, both read from disk.

    Proved for every protected image: original + noise is the protected image bit for bit; the noise is not all zero, at
    most epsilon, nowhere outside the window, and inside the budget of a mask per sample; type, shape and header are the
    original's. For the rest: all other files have the same bytes, none is missing or added, and the manifest is right.

    Args:
        source: the original data set.
        output: its protected copy.
        store: the noise.
        layout: a name of ``layouts.LAYOUTS``; None finds it out.
        jobs: threads.
        shard: index and number of calls that share the work; the first also checks what belongs to no single file.
        signer: file of the Ed25519 public key (PEM) that the manifest must be signed with.
        progress: called with a ``Progress`` for every file.

    Raises:
        LayoutError, FormatError, OSError: if the original cannot be read.
        NoiseStoreError: if the store is damaged, or not the owner's.
    """
    noises = as_store(store)
    rules = NoiseRules(noises)
    require_owner(noises)
    data, target = open_layout(source, layout), Path(output)
    if not target.exists():
        return VerifyReport(0, [f"{target} does not exist; check the path, or publish it first"])
    if data.root.is_file() != target.is_file():
        return VerifyReport(0, [f"{target} is of another kind than the original"])
    splits, wrong = _splits_of(data, target)
    record = record_of(noises, data.manifest_path(target)) or {"failed": {}, "files": {}}
    left_out, published = record["failed"], frozenset(record["files"])
    comparison = _Comparison(data, target, splits, rules, left_out, published, jobs, shard, progress)
    checked, problems = comparison.run()
    if rules.found_no_image():
        strange = f"none of the {checked} images' noise is in {noises.path}: it is the store of another data set, or this is not"
        problems.insert(0, f"{strange} the original that the noise was made for")
    problems += wrong
    if shard[0]:
        return VerifyReport(checked, problems, partial=True)
    problems += manifest_problems(data, target, noises, splits, comparison.missing(), comparison.digests, jobs)
    problems += record_problems(data, target, noises)
    if signer is not None and (problem := signature_problem(data.manifest_path(target), Path(signer))):
        problems.append(problem)
    return VerifyReport(checked, problems, dict(left_out), partial=shard[1] > 1)


def _splits_of(data: Layout, target: Path) -> tuple[tuple[str, ...], list[str]]:
    """The protected splits by the manifest of a copy, and what is wrong with them; a broken manifest is told elsewhere."""
    splits: tuple[str, ...] = (TRAIN,)
    with suppress(OSError, ValueError):
        splits = tuple(read_manifest(data, target).get("splits", [TRAIN]))
    if splits and not set(splits) - set(data.splits):
        return splits, []
    return (TRAIN,), [f"the manifest names the splits {splits}, the original has {data.splits}"]


@dataclass(frozen=True)
class _Comparison:
    """A data set and its copy, file by file; ``left_out`` and ``published`` are what the record of the copy says."""

    data: Layout
    target: Path
    splits: tuple[str, ...]
    rules: NoiseRules
    left_out: Mapping[str, str]
    published: frozenset[str]
    jobs: int
    shard: tuple[int, int]
    report: ProgressCallback | None
    #: SHA-256 of published files of images, by name.
    digests: dict[str, str] = field(default_factory=dict)

    def run(self) -> tuple[int, list[str]]:
        """Cases that were compared, and the problems."""
        data = self.data.single_file
        if data is None:
            return self._folder()
        return (0, []) if self.shard[0] else self._single_file(data)

    def missing(self) -> set[str]:
        """Image files that the copy has not; ``run`` says so of each, unless it is known why."""
        files = self.data.published_files(self.splits, self.target)
        return {file for file in files if not self.data.path_of(file, self.target).exists()}

    def _folder(self) -> tuple[int, list[str]]:
        others = self._other_files()
        everything: list[StoredImage | str] = [*self.data.stored_images(self.splits), *others]
        items = everything[self.shard[0] :: self.shard[1]]
        replaced = dict(self.data.rewritten_files(self.splits))
        images = self.data.stored_images(self.data.splits)
        absent = {*self.left_out, *(file for stored in images if stored.name in self.left_out for file in stored.files)}

        def compare(item: StoredImage | str) -> list[str]:
            if isinstance(item, str):
                return list(self._file_problems(item, replaced.get(item), item in absent))
            return [f"case {item.name!r}: {what}" for what in self._image_problems(item)]

        problems: list[str] = []
        for done, found in enumerate(in_threads(compare, items, self.jobs), start=1):
            problems += found
            item = items[done - 1]
            self._tell(done, len(items), item if isinstance(item, str) else item.name)
        if self.shard[0] == 0:
            problems += self._additions()
            bare = find_unprotected(self.data, self.splits, self._without_noise(), self.target, self.jobs)
            problems += [f"{file}: {reason}" for file, reason in bare.items()]
        there = [item for item in items if isinstance(item, StoredImage) and (self.target / item.published[0]).exists()]
        return len(there), problems

    def _without_noise(self) -> list[str]:
        """All files of the copy that carry no noise, those that should not be there too."""
        noisy = {file for stored in self.data.stored_images(self.splits) for file in stored.published}
        files = (path.relative_to(self.target).as_posix() for path in self.target.rglob("*") if path.is_file())
        return sorted(set(files) - noisy)

    def _tell(self, done: int, total: int, name: str) -> None:
        if self.report is not None:
            self.report(Progress("verify", done, total, name))

    @cached_property
    def _expected(self) -> OtherFiles:
        return other_files(self.data, self.splits)

    def _other_files(self) -> list[str]:
        """The files beside the protected images that the copy has, or should have."""
        known = set(self.data.every_file())
        there = {file for file in known if (self.target / file).is_file()}
        expected = {*self._expected.copied, *there, *(known & self.published)}
        return sorted(expected - set(self.data.image_files(self.splits)))

    def _image_problems(self, stored: StoredImage) -> Iterator[str]:
        missing = [file for file in stored.published if not (self.target / file).is_file()]
        if missing and stored.name in self.left_out and len(missing) == len(stored.files):
            return
        if missing:
            yield f"{missing[0]}: missing from the copy"
            return
        try:
            with opened_once():
                found = self._differences(stored)
            yield from found
        except (FormatError, OverflowError, OSError) as error:
            yield str(error)

    def _differences(self, stored: StoredImage) -> list[str]:
        """What is wrong with the files of an image that are there, the header that the store keeps included."""
        root, published = self.data.root, stored.in_copy().read(self.target)
        digest = content_digest(published)
        found = list(self.rules.problems(stored.read(root), published, digest))
        found += stored.differences(root, self.target)
        if found:
            return found
        known = header_key(digest, stored.frame(root))
        digests = {file: file_sha256(self.target / file) for file in stored.published}
        self.digests.update(digests)
        wanted = {key_of_digests(digests.values()): stored.keepsake(root), known: b""}
        if any(kept(self.rules.store, key) != part for key, part in wanted.items()):
            found.append("the store has no header for this original; give the store that published it")
        return found

    def _file_problems(self, file: str, content: bytes | None, absent: bool) -> Iterator[str]:
        copy = self.target / file
        try:
            if not copy.is_file():
                if not absent:
                    yield f"{file}: missing from the copy"
            elif content is not None:
                if copy.read_bytes() != content:
                    yield f"{file}: is not what a protected copy has"
                if kept(self.rules.store, copy_key(self.target, [file])) != (self.data.root / file).read_bytes():
                    yield f"{file}: the store does not keep the original; publish again"
            elif not same_bytes(self.data.root / file, copy):
                yield f"{file}: differs from the original"
        except OSError as error:
            yield f"{file}: {error}"

    def _additions(self) -> Iterator[str]:
        """Files and folders that the copy has and the original has not, and folders that are missing."""
        data, needed = self.data, set(self._expected.folders)
        published = data.published_files(self.splits, self.target)
        known = {*data.every_file(), *published, *own_files(data)} - set(data.renamed(self.splits))
        above = {parent.as_posix() for file in known for parent in PurePosixPath(file).parents}
        folders = {*needed, Path(data.manifest).parent.as_posix(), *above}
        for path in sorted(self.target.rglob("*")):
            file = path.relative_to(self.target).as_posix()
            if path.is_symlink() or file not in (folders if path.is_dir() else known):
                yield f"{file}: not in the original data set"
        for folder in sorted(needed - {"."}):
            if not (self.target / folder).is_dir():
                yield f"{folder}: missing from the copy"

    def _single_file(self, data: MedMNIST) -> tuple[int, list[str]]:
        checked, problems = 0, list[str]()
        try:
            copy = data.reopen(self.target)
            for split in self.splits:
                ours, theirs = data.dataset(split), copy.dataset(split)
                if ours.names != theirs.names:
                    problems.append(f"split {split} has {len(theirs)} cases, the original {len(ours)}")
                for index, (original, protected) in enumerate(zip(ours, theirs, strict=False), start=1):
                    name = original["name"]
                    problems += [f"case {name!r}: {what}" for what in self._case_problems(original, protected)]
                    checked += 1
                    self._tell(index, len(ours), name)
            problems += data.differences(copy, self.splits)
        except (FormatError, LayoutError, OSError) as error:
            problems.append(str(error))
        return checked, problems

    def _case_problems(self, original: Case, protected: Case) -> Iterator[str]:
        if not np.array_equal(np.asarray(original["label"]), np.asarray(protected["label"])):
            yield "its label differs from the original's"
        try:
            yield from self.rules.problems(original["image"], protected["image"], content_digest(protected["image"]))
        except OverflowError as error:
            yield str(error)
