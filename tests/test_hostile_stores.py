"""Records that are malformed, with checksums and a signature that fit them, end in a message that names the store."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forged_stores import plant
from published_samples import make_folder

from monai_salm.cli.describing import info
from monai_salm.generate.new_images import generate_noise
from monai_salm.generate.precompute import precompute
from monai_salm.layouts import detect
from monai_salm.methods import RandomNoise
from monai_salm.noise.window import IntensityWindow
from monai_salm.publishing import publish, restore, verify
from monai_salm.store.as_loaded import find_as_loaded
from monai_salm.store.records import kept, records
from monai_salm.store.store import NoiseStore, NoiseStoreError

Plant = tuple[str, tuple[Any, ...]]
DEEP = "[" * 100_000


def described(text: str) -> Plant:
    return "UPDATE meta SET json = ?, checksum = ?", (text, (text,))


def recorded(text: str) -> Plant:
    return "INSERT INTO record (json, checksum) VALUES (?, ?)", (text, (text,))


def published(**change: Any) -> Plant:
    names = ("output", "manifest", "job", "source", "layout", "time")
    record: dict[str, Any] = {
        "kind": "publish",
        **dict.fromkeys(names, "x"),
        "signature": None,
        "files": {},
        "failed": {},
    }
    record |= {"renamed": {}, "splits": ["train"], "folders": []}
    return recorded(json.dumps({**record, **change}))


def keeping(key: Any, data: Any) -> Plant:
    return "INSERT OR REPLACE INTO kept (key, data, checksum) VALUES (?, ?, ?)", (key, data, (key, data))


def network(spec: Any, weights: Any) -> Plant:
    return "INSERT INTO network (spec, weights, checksum) VALUES (?, ?, ?)", (spec, weights, (spec, weights))


def pairs(*numbers: float) -> bytes:
    return struct.pack(f"<{len(numbers)}d", *numbers)


DESCRIPTIONS: dict[str, Any] = {
    "window a number": {"window": 3},
    "window a list": {"window": [0, 255]},
    "window of no kind": {"window": {"low": 0, "high": 1}},
    "window kind a list": {"window": {"kind": ["fixed"], "low": 0, "high": 1}},
    "window without ends": {"window": {"kind": "fixed"}},
    "window of texts": {"window": {"kind": "fixed", "low": "a", "high": "b"}},
    "window too large": {"window": {"kind": "fixed", "low": 0, "high": 10**400}},
    "window of no channels": {"window": {"kind": "channels", "rules": 5}},
    "window of windows": {"window": {"kind": "channels", "rules": [7]}},
    "percentiles of texts": {"window": {"kind": "percentile", "low": "a", "high": None}},
    "epsilon a list": {"epsilon": []},
    "epsilon too large": {"epsilon": 10**400},
    "epsilon negative": {"epsilon": -1},
    "epsilon no number": {"epsilon": float("nan")},
    "mask share text": {"mask_share": "much"},
    "mask share a dictionary": {"mask_share": {}},
    "method text": {"method": "salm"},
    "method without a name": {"method": {}},
    "method name a number": {"method": {"name": 7}},
    "skipped a number": {"skipped": 5},
    "skipped nothing": {"skipped": None},
    "skipped of texts": {"skipped": ["a"]},
    "skipped without a reason": {"skipped": [{"name": "a"}]},
}
PLANTS: dict[str, Plant] = {
    "description empty": described(""),
    "description a list": described("[]"),
    "description a text": described('"text"'),
    "description nested": described(DEEP),
    "description cut": described('{"epsilon": 0.1'),
    "description without anything": described("{}"),
    "two descriptions": ("UPDATE meta SET json = ?, checksum = x''", ("{}",)),
    "place a text": ("UPDATE original SET place = 'x'", ()),
    "place of no row": ("UPDATE original SET place = 1e15", ()),
    "record empty": recorded(""),
    "record a list": recorded("[[1, 2]]"),
    "record pairs": recorded('[["kind", "publish"]]'),
    "record a number": recorded("5"),
    "record nothing": recorded("null"),
    "record nested": recorded(DEEP),
    "record of no kind": recorded("{}"),
    "record kind a list": recorded('{"kind": []}'),
    "record kind a dictionary": recorded('{"kind": {}}'),
    "record of a copy without files": recorded('{"kind": "publish"}'),
    "record manifest a number": published(manifest=5),
    "record manifest nothing": published(manifest=None),
    "record files a list": published(files=["a"]),
    "record files of numbers": published(files={"a": 5}),
    "record failed a text": published(failed="all"),
    "record failed of lists": published(failed={"a": []}),
    "record renamed a list": published(renamed=[]),
    "record renamed of numbers": published(renamed={"a": 1}),
    "record splits a text": published(splits="train"),
    "record splits of numbers": published(splits=[1]),
    "record folders a number": published(folders=1),
    "record signature a number": published(signature=1),
    "record output nothing": published(output=None),
    "record job a number": published(job=1),
    "record of restored files a list": recorded('{"kind": "restore", "output": "x", "files": []}'),
    "record of classes a list": recorded('{"kind": "classes", "classes": [1]}'),
    "record of classes of numbers": recorded('{"kind": "classes", "classes": {"train": 5}}'),
    "record of classes of texts": recorded('{"kind": "classes", "classes": {"train": {"a": "b"}}}'),
    "record of no text": recorded(b"{}"),  # type: ignore[arg-type]
    "scales cut": keeping("scales", b"12345"),
    "scales without a pair": keeping("scales", pairs(1.0)),
    "scales zero": keeping("scales", pairs(0.0, 1.0)),
    "scales infinite": keeping("scales", pairs(float("inf"), 0.0)),
    "scales no numbers": keeping("scales", pairs(float("nan"), 0.0)),
    "scales text": keeping("scales", "1, 0"),
    "header a number": keeping("header", 5),
    "network a list": network("[]", b""),
    "network pairs": network('[["name", "x"]]', b""),
    "network without a name": network("{}", struct.pack("<Q", 2) + b"{}"),
    "network name a list": network('{"name": []}', struct.pack("<Q", 2) + b"{}"),
    "network nested": network(DEEP, struct.pack("<Q", 2) + b"{}"),
    "network of no weights": network('{"name": "resnet10"}', b""),
    "network that claims more": network('{"name": "resnet10"}', struct.pack("<Q", 2**60) + b"{}"),
    "network spec a number": network(5, struct.pack("<Q", 2) + b"{}"),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder data set ``set``, its store ``noise.db`` and its copy ``out``."""
    root = tmp_path_factory.mktemp("made")
    data = detect(make_folder(root / "set", "int16"))
    settings: dict[str, Any] = {"window": IntensityWindow(-500, 500), "task": data.task(), "device": "cpu"}
    publish(root / "set", root / "out", precompute(data.dataset(), root / "noise.db", method=RandomNoise(), **settings))
    return root


def uses(root: Path, store: NoiseStore, output: Path) -> dict[str, Callable[[], Any]]:
    """What is done with a store."""
    image = np.full((1, 7, 6, 5), 33, np.int16)
    return {
        "check": store.check,
        "networks": store.networks,
        "records": lambda: records(store),
        "info": lambda: info(store.path),
        "loader": lambda: find_as_loaded(store, image.astype(np.float32)),
        "verify": lambda: verify(root / "set", root / "out", store),
        "restore": lambda: restore(root / "out", output / "back", store),
        "publish": lambda: publish(root / "set", output / "new", store),
        "generate": lambda: generate_noise(store, image, image, "new"),
    }


@pytest.mark.parametrize("case", [*DESCRIPTIONS, *PLANTS])
def test_malformed_record_is_a_message(made: Path, case: str, tmp_path: Path) -> None:
    """Every use of the store ends in success, where it does not read the record, or in an error of the package."""
    path = Path(shutil.copy(made / "noise.db", tmp_path / "hostile.db"))
    if case in DESCRIPTIONS:
        statement, values = described(json.dumps({**NoiseStore(path).meta, **DESCRIPTIONS[case]}))
    else:
        statement, values = PLANTS[case]
    plant(path, statement, *values)
    errors: list[Exception] = []
    for use in uses(made, NoiseStore(path, unsigned=True), tmp_path).values():
        try:
            use()
        except (NoiseStoreError, ValueError) as error:
            errors.append(error)
    assert all(type(error).__module__.startswith("monai_salm") for error in errors), errors
    assert any(isinstance(error, NoiseStoreError) and str(path) in str(error) for error in errors), (
        "nothing read the record"
    )


def test_there_are_enough_hostile_stores() -> None:
    assert len(DESCRIPTIONS) + len(PLANTS) >= 60


@pytest.mark.parametrize(
    "content", [b"", b"[", b"[5]\n", b'[["a"], []]\n', b"[[-1], []]\n", b"[[1, 2], []]\n", b"{}\n", b"[[1], [5]]\n"]
)
def test_malformed_header_is_a_message(made: Path, content: bytes, tmp_path: Path) -> None:
    from monai_salm.publishing.copy_records import copy_key

    path = Path(shutil.copy(made / "noise.db", tmp_path / "hostile.db"))
    name = detect(made / "out").dataset().names[0]
    statement, values = keeping(copy_key(made / "out", [name]), content)
    plant(path, statement, *values)
    store = NoiseStore(path, unsigned=True)
    report = restore(made / "out", tmp_path / "back", store)
    assert name in report.failed
    assert not verify(made / "set", made / "out", store).ok
    assert kept(store, copy_key(made / "out", [name])) == content


def test_an_empty_store_is_no_success(made: Path, tmp_path: Path) -> None:
    empty = NoiseStore.create(tmp_path / "empty.db", NoiseStore(made / "noise.db").meta)
    for use in (empty.check, lambda: info(empty.path), lambda: restore(made / "out", tmp_path / "back", empty)):
        with pytest.raises(NoiseStoreError, match="holds no noise"):
            use()
    assert not verify(made / "set", made / "out", empty).ok
