"""The verbs around publishing: what would be done, and who may have the store."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_salm.cli.listing import class_lines, listed, not_copied, window_text
from monai_salm.cli.method_options import make_method
from monai_salm.cli.options import NoiseOptions
from monai_salm.cli.running import Outcome
from monai_salm.shared.progress import ProgressCallback, duration

if TYPE_CHECKING:
    from monai_salm.publishing import Plan


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
