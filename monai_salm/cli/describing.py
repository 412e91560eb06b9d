"""The verbs that show and describe."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_salm.cli.listing import class_lines, listed, not_copied, window_text
from monai_salm.cli.method_options import make_method
from monai_salm.cli.options import CopyOptions, NoiseOptions
from monai_salm.cli.running import Outcome
from monai_salm.shared.progress import ProgressCallback, duration

if TYPE_CHECKING:
    from monai_salm.publishing import Plan


def demo(
    output: Path = Path("salm_demo"),
    rank: int = 2,
    dataset: str | None = None,
    device: str = "auto",
    seed: int = 0,
    *,
    progress: ProgressCallback,
) -> Outcome:
    """Protect, verify and evaluate a small real data set, end to end, in a few minutes.

    The images are cut from a brain template that comes with the demo's packages: pip install "monai_salm[demo]". Originals,
    protected copy, noise and a report with pictures are left in OUTPUT.
    """
    from monai_salm.demo.run import run_demo

    result = run_demo(output, rank=rank, dataset=dataset, device=device, seed=seed, progress=progress)
    return Outcome(result, result.pop("text").split("\n"))


def info(file: Path, layout: str | None = None, key: Path | None = None) -> Outcome:
    """Say what a noise store or a data set holds.

    Of a store: the method and its settings, the images, the strength of the noise. Of a data set: layout, splits, task,
    and whether it is a protected copy.
    """
    data = _store_info(file, key) if _is_store(file) else _dataset_info(file, layout)
    shown = {**data, "window": window_text(data["window"])} if "window" in data else dict(data)
    shown |= {"signed": _SIGNED[data["signed"]]} if "signed" in data else {}
    classes = class_lines(shown.pop("classes"), data.get("task", {}))
    lines = [f"{_WORDS.get(key, key)}: {_plain(value)}" for key, value in shown.items()]
    return Outcome(data, [*lines, *classes])


# What --json calls by a word that says little to a reader.
_WORDS = {
    "psnr": "mean PSNR, dB",
    "support": "share of the voxels with noise",
    "data": "digest of the images and labels",
    "errors": "training error of the surrogates, by round",
    "view": "what networks see",
    "width": "width of the surrogates, as a share of the published networks'",
    "skipped": "left out",
}


# The states of a store's signature, see ``store.seal.SealState``.
_SIGNED = {
    "proved": "yes, by your owner's key",
    "unsigned": "no; publish, verify and restore refuse it without --unsigned",
    "no_key": "by an owner's key that is not here; give it with --key",
    "other_key": "by another owner's key; give it with --key",
    "changed": "by your owner's key, BUT CHANGED SINCE; use a backup",
}


def _plain(value: Any) -> str:
    """A value as a reader takes it in: few digits, no brackets."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        levels = value * 255
        return f"{round(levels)}/255" if 0 < value < 1 and abs(levels - round(levels)) < 1e-9 else f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items()) or "none"
    if isinstance(value, tuple):  # a shape
        return " x ".join(map(str, value))
    if isinstance(value, list):
        return ", ".join(map(_plain, value)) or "none"
    return "not given" if value is None else str(value)


def _is_store(file: Path) -> bool:
    if not file.is_file():
        return False
    with open(file, "rb") as stream:
        return stream.read(16) == b"SQLite format 3\0"


def _store_info(file: Path, key: Path | None) -> dict[str, Any]:
    from monai_salm.publishing import noise_statistics
    from monai_salm.publishing.copy_records import classes_of
    from monai_salm.store.seal import seal_state

    store = CopyOptions(key=key).opened(file)
    store.settings  # noqa: B018 - raises for an incomplete one
    store.check()
    return {
        "kind": "store",
        "signed": seal_state(store).name.lower(),
        **noise_statistics(store),
        "shapes": store.shapes(),
        # Without the secret that its textures follow from.
        **{name: value for name, value in store.meta.items() if name != "key"},
        "classes": classes_of(store),
    }


def _dataset_info(file: Path, layout: str | None) -> dict[str, Any]:
    from monai_salm.layouts import open_layout
    from monai_salm.publishing import read_manifest

    data = open_layout(file, layout)
    first = data.dataset()[0]["image"]
    return {
        "kind": "data set",
        "layout": data.name,
        "splits": {split: len(data.dataset(split)) for split in data.splits},
        "task": data.task().spec(),
        "shape": list(first.shape),
        "dtype": first.dtype.name,
        "protected": bool(read_manifest(data)),
        "classes": data.classes(),
    }


def plan(
    source: Path,
    noise: NoiseOptions,
    copy: list[str] | None = None,
    *,
    progress: ProgressCallback,
    **texts: str | None,
) -> Outcome:
    """Say what protect would do, what it would refuse, and about how long it would take; writes nothing.

    Reads every image once and times a few steps of the networks on this machine. Takes INPUT and the options of protect, but
    not --seed, which has no effect here, nor OUTPUT, --store, --overwrite, --jobs, --key, --sign-key and
    --dataset-version: what they name is not looked at. The exit code is 1 if anything would be left out or refused.
    """
    settings = noise.read()
    make_method(noise.method, texts)  # wrong settings are reported before the data set is read
    from monai_salm.layouts import open_layout
    from monai_salm.publishing import plan as plan_

    settings["method"] = make_method(noise.method, texts, open_layout(source, noise.layout))
    found = plan_(source, layout=noise.layout, copy=copy or (), progress=progress, **settings)
    return Outcome({**asdict(found), "ok": found.ok}, _described(found), found.ok)


def encrypt(store: Path, output: Path, recipient: list[str]) -> Outcome:
    """Encrypt a noise store (age) for those who may have the originals back.

    Each owner of one of the private keys can decrypt it and restore the originals. Needs: pip install "monai_salm[crypto]".
    """
    from monai_salm.publishing.sharing import encrypt_store

    encrypt_store(store, output, recipient)
    return Outcome({"output": str(output), "recipients": recipient}, [f"{store} encrypted: {output}"])


def decrypt(encrypted: Path, store: Path, identity: Path) -> Outcome:
    """Decrypt a noise store that was encrypted for you.

    Needs: pip install "monai_salm[crypto]".
    """
    from monai_salm.publishing.sharing import decrypt_store

    decrypt_store(encrypted, store, identity)
    return Outcome({"store": str(store)}, [f"Noise store: {store} (keep it private: it undoes the protection)"])


def _described(found: Plan) -> list[str]:
    splits = ", ".join(f"{name} {count}" for name, count in found.splits.items())
    lines = [
        f"Layout {found.layout}; cases: {splits}",
        f"Task: {found.task['kind']}, {found.task['num_classes']} classes; window {window_text(found.window)}",
        *class_lines(found.classes, found.task),
        *(f"  {_noise_text(image)}" for image in found.noise),
        f"To be protected: {found.protected} images",
        *(f"  {count} x {shape}" for shape, count in list(found.shapes.items())[:8]),
        *(f"  {count} x {dtype}" for dtype, count in found.dtypes.items()),
        "Disk: " + ", ".join(f"{name} {_size(size)}" for name, size in found.bytes.items()),
    ]
    if found.seconds is not None:
        lines.append(f"Time for the noise: about {duration(found.seconds)} on this machine")
    return [
        *lines,
        *listed("would be left out", found.refused),
        *not_copied(found.not_copied, "would not be copied"),
        *(f"Note: {warning}" for warning in found.warnings),
        *(f"Problem: {problem}" for problem in found.problems),
    ]


def _noise_text(image: dict[str, Any]) -> str:
    """The window and the noise of an image, in real units."""
    channels = zip(image["window"], image["noise"], strict=True)
    parts = [f"{low:.4g} to {high:.4g}, noise at most {noise:.3g}" for (low, high), noise in channels]
    return f"{image['name']}: shows {'; '.join(dict.fromkeys(parts))}"


def _size(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
