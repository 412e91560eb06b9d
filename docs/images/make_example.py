"""Draw docs/images/example.png from what the demo wrote: clean, protected, difference amplified.

monai-salm demo && python docs/images/make_example.py salm_demo
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

SCALE, GAP, CASES, GAIN = 6, 8, 3, 12


def panel(image: np.ndarray) -> Image.Image:
    return Image.fromarray(image).resize((image.shape[1] * SCALE, image.shape[0] * SCALE), Image.Resampling.NEAREST)


def main(folder: Path) -> None:
    (clean_path,), (protected_path,) = ((folder / part).glob("*.npz") for part in ("original", "protected"))
    clean, protected = (np.load(path)["train_images"][:CASES] for path in (clean_path, protected_path))
    change = protected.astype(int) - clean.astype(int)
    amplified = np.clip(128 + GAIN * change, 0, 255).astype(np.uint8)
    side = clean.shape[1] * SCALE
    sheet = Image.new("L", (3 * side + 2 * GAP, CASES * side + (CASES - 1) * GAP), 255)
    for row in range(CASES):
        for column, images in enumerate((clean, protected, amplified)):
            sheet.paste(panel(images[row]), (column * (side + GAP), row * (side + GAP)))
    sheet.save(Path(__file__).with_name("example.png"), optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
