"""The MONAI bundle does what the command line does, and the transform works in any other bundle."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from conftest import classification_cases
from typer.testing import CliRunner

from monai_salm import NoiseStore
from monai_salm.cli import app

pytest.importorskip("yaml", reason="MONAI reads config files with pyyaml; install .[bundle]")
bundle = pytest.importorskip("monai.bundle")

ROOT = Path(__file__).resolve().parents[1]
BUNDLE = ROOT / "bundles" / "salm_protect"
CONFIGS = BUNDLE / "configs"
# A short schedule, so that the tests take seconds.
SHORT = {"epsilon": "12/255", "width": 0.05, "device": "cpu", "surrogate_steps": 2}
SHORT_OPTIONS = ["--epsilon", "12/255", "--width", "0.05", "--device", "cpu", "--surrogate-steps", "2"]
EVALUATED = {
    "victims": ["resnet10"],
    "pipelines": ["resized 0.5"],
    "countermeasures": ["none"],
    "seeds": [0],
    "fractions": [1.0],
    "epochs": 1,
}
EVALUATED_OPTIONS = [
    "--victims",
    "resnet10",
    "--pipelines",
    "resized 0.5",
    "--countermeasures",
    "none",
    "--seeds",
    "0",
    "--fractions",
    "1",
]

pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")  # MONAI says so at every run


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    arrays: dict[str, Any] = {}
    for seed, (split, count) in enumerate((("train", 12), ("test", 6))):
        cases = classification_cases(cases=count, seed=seed)
        arrays[f"{split}_images"] = np.concatenate([case["image"] for case in cases])
        arrays[f"{split}_labels"] = np.array([[case["label"]] for case in cases])
    np.savez_compressed(tmp_path / "set.npz", **arrays)
    return tmp_path / "set.npz"


@contextmanager
def own_search_path() -> Iterator[None]:
    """A run puts the bundle's folder on the search path, where it would stay."""
    before = list(sys.path)
    try:
        yield
    finally:
        sys.path[:] = before


def run(name: str, **ids: Any) -> None:
    with own_search_path():
        bundle.run(run_id=name, config_file=str(CONFIGS / f"{name}.yaml"), **ids)


def command(*arguments: object) -> dict[str, Any]:
    result = CliRunner().invoke(app, [*(str(a) for a in arguments), "--json"])
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_protect_gives_the_bytes_of_the_command_line(archive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ours, theirs = archive.with_name("ours.npz"), archive.with_name("theirs.npz")
    run("protect", input=str(archive), output=str(ours), **SHORT)
    assert "12 cases protected and verified" in capsys.readouterr().out
    command("protect", archive, theirs, *SHORT_OPTIONS)
    assert ours.read_bytes() == theirs.read_bytes() != archive.read_bytes()
    stores = [NoiseStore(f"{path}.noise.db").meta for path in (ours, theirs)]
    assert stores[0] == stores[1]

    # Made again it only verifies; and a copy that is not the bundle's is not taken for it.
    made = ours.stat().st_mtime_ns
    run("protect", input=str(archive), output=str(ours), **SHORT)
    assert ours.stat().st_mtime_ns == made
    ours.write_bytes(archive.read_bytes())
    with pytest.raises(RuntimeError, match="Failed to evaluate") as failed:
        run("protect", input=str(archive), output=str(ours), **SHORT)
    assert "not what it should be" in str(failed.value.__cause__)


def test_every_setting_can_be_overridden(archive: Path) -> None:
    ours, theirs = archive.with_name("ours.npz"), archive.with_name("theirs.npz")
    ids = {"splits": ["train", "test"], "window": [10, 250], "seed": 3, "surrogate": "resnet10", "jobs": 2}
    run("protect", input=str(archive), output=str(ours), store=str(archive.with_name("s.db")), **ids,
        **{**SHORT, "method#mask_area": 5, "mask_ratio": 0.2})  # fmt: skip
    options = ["--splits", "train,test", "--window", "10,250", "--seed", 3, "--surrogate", "resnet10"]
    command("protect", archive, theirs, *options, *SHORT_OPTIONS, "--mask-area", 5, "--mask-ratio", 0.2)
    assert ours.read_bytes() == theirs.read_bytes()
    assert NoiseStore(archive.with_name("s.db")).meta["method"]["mask_ratio"] == 0.2
    assert NoiseStore(archive.with_name("s.db")).meta["window"] == {"kind": "fixed", "low": 10, "high": 250}


def test_a_folder_of_volumes_with_another_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    volumes(tmp_path / "scans")
    (tmp_path / "other.yaml").write_text("method:\n  _target_: monai_salm.RandomNoise\n  epsilon: $12 / 255\n")
    files = [str(CONFIGS / "protect.yaml"), str(tmp_path / "other.yaml")]
    with own_search_path():  # the ids' own defaults: scans, scans_public
        bundle.run(run_id="protect", config_file=files, device="cpu", window=[-300, 500])
    options = ["--method", "random_noise", "--epsilon", "12/255", "--window", "-300,500", "--device", "cpu"]
    command("protect", "scans", "theirs", *options)
    names = sorted(path.name for path in (tmp_path / "theirs").iterdir())
    assert len(names) == 8, "the set's seven and the manifest"
    for name in names:
        ours, theirs = ((tmp_path / root / name).read_bytes() for root in ("scans_public", "theirs"))
        if name == "monai_salm.json":  # it holds the copy's own name
            ours, theirs = (json.dumps({**json.loads(text), "dataset": None}).encode() for text in (ours, theirs))
        assert ours == theirs
    for name in (name for name in names if name.startswith("training_")):
        original, protected = (
            np.asarray(nibabel.load(tmp_path / root / name).dataobj) for root in ("scans", "scans_public")
        )
        assert 0 < np.abs(protected.astype(float) - original).max() <= 12 / 255 * 800, "both could be without noise"


def test_evaluate_gives_the_cells_of_the_command_line(archive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output, values, page = (archive.with_name(name) for name in ("out.npz", "report.json", "report.html"))
    command("protect", archive, output, *SHORT_OPTIONS)
    both = {"input": str(archive), "output": str(output), "store": f"{output}.noise.db", "controls": []}
    run("evaluate", **both, **EVALUATED, width=0.05, device="cpu", jobs=1, json=str(values), html=str(page))
    assert "protected" in capsys.readouterr().out
    options = [*EVALUATED_OPTIONS, "--epochs", 1, "--width", 0.05, "--device", "cpu", "--jobs", 1, "--controls", "none"]
    theirs = command("evaluate", archive, output, *options, "--store", f"{output}.noise.db")
    ours = json.loads(values.read_text())
    assert without_times(ours["cells"]) == without_times(theirs["cells"])
    assert ours["protocol"]["epsilon"] == theirs["protocol"]["epsilon"] == pytest.approx(12 / 255)
    assert "<html" in page.read_text(encoding="utf-8")
    with pytest.raises(RuntimeError) as failed:
        run("evaluate", **{**both, "input": str(output), "output": str(archive)}, **EVALUATED)
    assert "give the original first" in str(failed.value.__cause__)


def test_the_command_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a user types it in the bundle's folder, read by MONAI's command line."""
    fire = pytest.importorskip("fire", reason="MONAI's command line needs fire; install .[bundle]")
    readme = (BUNDLE / "docs" / "README.md").read_text(encoding="utf-8")
    line = next(found for found in readme.splitlines() if found.startswith("python -m monai.bundle run protect"))
    assert line.endswith("--input scans --output scans_public")
    volumes(tmp_path / "scans")
    words = line.replace("scans", str(tmp_path / "scans")).split()[3:]
    short = ["--epsilon", "12/255", "--window", "[0,255]", "--surrogate_steps", "2"]
    monkeypatch.chdir(BUNDLE)
    with own_search_path():  # python -m monai.bundle is this call
        fire.Fire({"run": bundle.run}, command=[*words, *short, "--width", "0.05", "--device", "cpu"])
    assert "6 cases protected and verified" in capsys.readouterr().out
    assert NoiseStore(tmp_path / "scans_public.noise.db").meta["window"] == {"kind": "fixed", "low": 0, "high": 255}
    assert (tmp_path / "scans_public" / "training_0.nii.gz").is_file()


def test_every_id_of_the_readme_is_in_a_config() -> None:
    readme = (BUNDLE / "docs" / "README.md").read_text(encoding="utf-8")
    known = {
        name: set(bundle.ConfigParser.load_config_file(CONFIGS / f"{name}.yaml")) for name in ("protect", "evaluate")
    }
    table = "\n".join(line for line in readme.splitlines() if line.startswith("| `"))
    first_cells = [line.split("|")[1] for line in table.splitlines()]
    assert {word for cell in first_cells for word in re.findall(r"`(\w+)`", cell)} <= known["protect"]
    for name, text in re.findall(r"`--(\w+)( |`)", readme):
        assert name in known["evaluate"], f"--{name}{text}"


def test_the_transform_works_in_another_bundle(archive: Path, tmp_path: Path) -> None:
    output = archive.with_name("out.npz")
    command("protect", archive, output, "--method", "random_noise", "--device", "cpu")
    with np.load(archive) as clean, np.load(output) as protected:
        first, expected = clean["train_images"][0][None], protected["train_images"][0][None]
    np.save(tmp_path / "first.npy", first)
    config = {
        "imports": ["$import numpy as np"],
        "data": [{"image": str(tmp_path / "first.npy")}],
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": "image"},
                {"_target_": "monai_salm.SALMProtectd", "keys": "image", "store": f"{output}.noise.db"},
                {"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": 0, "a_max": 255, "b_min": 0, "b_max": 1},
            ],
        },
        "dataset": {"_target_": "CacheDataset", "data": "@data", "transform": "@preprocessing", "progress": False},
        "loader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1},
        "infer": ["$np.save(@out, next(iter(@loader))['image'][0].numpy())"],
        "out": str(tmp_path / "seen.npy"),
    }
    (tmp_path / "infer.json").write_text(json.dumps(config))
    with own_search_path():
        bundle.run(run_id="infer", config_file=str(tmp_path / "infer.json"))
    np.testing.assert_array_equal(np.load(tmp_path / "seen.npy"), expected.astype(np.float32) / 255)
    assert (expected != first).any()


# What MONAI's schema of 2024-07-25 asks of metadata.json, said in our own words: it is downloaded by verify_metadata
# otherwise, and tests use no network.
_TENSOR = {"type": str, "format": str, "num_channels": int, "spatial_shape": list, "dtype": str, "value_range": list}
_TENSOR_OPTIONAL = {"is_patch_data": bool, "channel_def": dict}
_FIELDS = {"schema": str, "version": str, "monai_version": str, "pytorch_version": str, "numpy_version": str,
           "required_packages_version": dict, "task": str, "description": str, "authors": str, "copyright": str,
           "network_data_format": dict}  # fmt: skip
_OPTIONAL = {"changelog": dict, "data_source": str, "data_type": str, "image_classes": str, "label_classes": str,
             "intended_use": str, "references": list}  # fmt: skip
_JSON = {str: "string", int: "integer", bool: "boolean", list: "array", dict: "object"}


def schema() -> dict[str, Any]:
    def typed(fields: dict[str, type]) -> dict[str, Any]:
        return {name: {"type": _JSON[kind]} for name, kind in fields.items()}

    tensor = {"type": "object", "properties": typed(_TENSOR | _TENSOR_OPTIONAL), "required": list(_TENSOR)}
    side = {"type": "object", "patternProperties": {"^.+$": tensor}}
    network = {"type": "object", "properties": {"inputs": side, "outputs": side}, "required": ["inputs", "outputs"]}
    properties = {**typed(_FIELDS), **typed(_OPTIONAL), "network_data_format": network}
    return {"type": "object", "properties": properties, "required": list(_FIELDS)}


def test_the_metadata_passes_the_schema(tmp_path: Path) -> None:
    pytest.importorskip("jsonschema", reason="MONAI verifies metadata with jsonschema; install .[bundle]")
    place = tmp_path / "schema.json"
    place.write_text(json.dumps(schema()))  # there already, so MONAI does not download it
    given = {"filepath": str(place), "hash_val": hashlib.md5(place.read_bytes()).hexdigest()}
    bundle.verify_metadata(meta_file=str(CONFIGS / "metadata.json"), **given)
    meta = json.loads((CONFIGS / "metadata.json").read_text())
    for missing in (*(field for field in _FIELDS if field != "schema"), "inputs"):
        cut = {name: value for name, value in meta.items() if name != missing}
        if missing == "inputs":
            cut["network_data_format"] = {"outputs": {}}
        (tmp_path / "cut.json").write_text(json.dumps(cut))
        with pytest.raises(ValueError, match="schema"):
            bundle.verify_metadata(meta_file=str(tmp_path / "cut.json"), **given)


def test_the_metadata_is_true() -> None:
    meta = json.loads((CONFIGS / "metadata.json").read_text())
    from monai_salm import __version__

    assert meta["version"] in meta["changelog"]
    assert meta["required_packages_version"]["monai_salm"] == __version__
    assert meta["schema"].endswith("meta_schema_20240725.json")
    assert (BUNDLE / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert {path.name for path in CONFIGS.iterdir()} == {
        "metadata.json",
        "protect.yaml",
        "evaluate.yaml",
        "logging.conf",
    }


def volumes(root: Path) -> None:
    """A MONAI datalist of six small volumes in two classes."""
    root.mkdir()
    listing = []
    for index, case in enumerate(classification_cases((12, 12, 12), cases=6)):
        nibabel.save(nibabel.Nifti1Image(case["image"][0], np.eye(4)), root / f"training_{index}.nii.gz")
        listing.append({"image": f"./training_{index}.nii.gz", "label": case["label"]})
    (root / "dataset.json").write_text(json.dumps({"training": listing}))


def without_times(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in cell.items() if name != "seconds"} for cell in cells]
