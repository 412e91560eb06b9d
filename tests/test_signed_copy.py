"""Copies that readers can check: the owner's signature covers every file, and openssl alone can check it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import docs_samples
import pytest
from layout_samples import build_image_folder
from typer.testing import CliRunner

from monai_salm.cli import app
from monai_salm.generate.precompute import precompute
from monai_salm.layouts import detect
from monai_salm.methods import RandomNoise
from monai_salm.noise.window import IntensityWindow
from monai_salm.publishing import publish, verify, verify_copy

pytest.importorskip("cryptography")


def protect(source: Path, store: Path) -> None:
    data = detect(source)
    options = {"method": RandomNoise(epsilon=0.05), "task": data.task(), "window": IntensityWindow(0, 255)}
    precompute(data.dataset(), store, device="cpu", **options)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A signed copy ``out`` of ``set`` with a test split, a licence and an empty folder; its store; two key pairs."""
    folder = tmp_path_factory.mktemp("signed")
    build_image_folder(folder / "set", ("train", "test"), ("cat", "dog"), count=2)
    (folder / "set/LICENSE.txt").write_text("as before")
    (folder / "set/later").mkdir()
    protect(folder / "set", folder / "noise.db")
    for name in ("key", "other"):
        docs_samples.signing_keys(folder, name)
    publish(folder / "set", folder / "out", folder / "noise.db", sign_key=folder / "key.pem", dataset_version="1.2")
    return folder


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made / "out", tmp_path / "out", symlinks=True)


def problems(copy: Path, made: Path) -> list[str]:
    return verify_copy(copy, made / "key.pub")[0].problems


def test_a_reader_needs_neither_originals_nor_store(made: Path, copy: Path) -> None:
    report, dataset = verify_copy(copy, made / "key.pub", jobs=2)
    assert report.ok
    files = [path for path in copy.rglob("*") if path.is_file()]
    assert report.checked == len(files) - 2  # all but the manifest and its signature
    assert dataset["name"] == "out"
    assert dataset["version"] == "1.2"
    assert len(dataset["date"]) == len("2026-01-31")
    assert verify(made / "set", made / "out", made / "noise.db", signer=made / "key.pub").ok


def test_every_file_that_is_changed_or_removed_is_named(made: Path, copy: Path) -> None:
    for path in sorted(path for path in copy.rglob("*") if path.is_file()):
        before, name = path.read_bytes(), path.relative_to(copy).as_posix()
        path.write_bytes(before + b" ")
        assert [name in problem for problem in problems(copy, made)] == [True], name
        path.write_bytes(bytes([before[0] ^ 1]) + before[1:])
        assert [name in problem for problem in problems(copy, made)] == [True], name
        path.unlink()
        found = problems(copy, made)
        assert len(found) == 1, found
        assert name in found[0] or "no manifest" in found[0]
        path.write_bytes(before)
    assert problems(copy, made) == []


def test_what_is_added_is_named(made: Path, copy: Path) -> None:
    (copy / "test/cat/new.png").write_bytes(b"x")
    (copy / "train/bird").mkdir()
    (copy / "bids").mkdir()
    (copy / "bids/.hidden").write_text("x")
    (copy / "train/cat/link.png").symlink_to(copy / "LICENSE.txt")
    (copy / "around").symlink_to(copy / "train")
    if hasattr(os, "mkfifo"):
        os.mkfifo(copy / "pipe")
    found = problems(copy, made)
    for name in ("test/cat/new.png", "train/bird", "bids", "bids/.hidden", "train/cat/link.png", "around", "pipe"):
        assert sum(problem.startswith(f"{name}:") for problem in found) == 1, (name, found)
    assert len(found) == 7


def test_a_file_that_becomes_a_link_to_its_own_bytes_is_named(made: Path, copy: Path, tmp_path: Path) -> None:
    shutil.move(copy / "LICENSE.txt", tmp_path / "elsewhere")
    (copy / "LICENSE.txt").symlink_to(tmp_path / "elsewhere")
    assert any("link" in problem for problem in problems(copy, made))


def test_another_key_and_another_list_are_refused(made: Path, copy: Path) -> None:
    report, dataset = verify_copy(copy, made / "other.pub")
    assert (report.ok, report.checked, dataset) == (False, 0, {})
    manifest = copy / "monai_salm.json"
    manifest.write_text(manifest.read_text().replace('"1.2"', '"1.3"'))
    (problem,) = problems(copy, made)
    assert "not signed" in problem


@pytest.mark.parametrize("text", ["{}", "[]", "3", "no JSON", '{"format_version": 2}', "[" * 100_000])
def test_another_text_of_the_same_owner_is_no_manifest(made: Path, copy: Path, text: str) -> None:
    from monai_salm.publishing.signing import sign_manifest

    (copy / "monai_salm.json").write_text(text)
    sign_manifest(copy / "monai_salm.json", made / "key.pem")
    (problem,) = problems(copy, made)
    assert "publish again" in problem


def test_openssl_alone_can_check_the_signature(made: Path, copy: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None or b"-rawin" not in subprocess.run([openssl, "pkeyutl", "-help"], capture_output=True).stderr:
        pytest.skip("needs openssl 1.1.1 or later")

    def check() -> int:
        decode = ["base64", "-d", "-A", "-in", "monai_salm.json.sig", "-out", "../sig.bin"]
        subprocess.run([openssl, *decode], cwd=copy, check=True)
        key = ["-pubin", "-inkey", str(made / "key.pub")]
        wanted = ["pkeyutl", "-verify", *key, "-rawin", "-in", "monai_salm.json", "-sigfile", "../sig.bin"]
        return subprocess.run([openssl, *wanted], cwd=copy, capture_output=True).returncode

    assert check() == 0
    (copy / "monai_salm.json").write_bytes((copy / "monai_salm.json").read_bytes() + b" ")
    assert check() != 0


def test_the_manifest_lists_every_file(made: Path) -> None:
    content = json.loads((made / "out/monai_salm.json").read_text())
    out = made / "out"
    files = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert {*content["files"], *content["other_files"]} == files - {"monai_salm.json", "monai_salm.json.sig"}
    assert content["folders"] == ["later"]


@pytest.mark.parametrize("field", ["other_files", "dataset", "folders"])
def test_the_owner_sees_a_changed_list(made: Path, copy: Path, field: str) -> None:
    manifest = copy / "monai_salm.json"
    content = json.loads(manifest.read_text())
    content[field] = {"LICENSE.txt": "0" * 64} if field == "other_files" else {}
    manifest.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
    found = verify(made / "set", copy, made / "noise.db").problems
    assert any("monai_salm.json" in problem for problem in found)


@pytest.mark.skipif(os.name != "posix", reason="file modes")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_a_private_key_that_others_can_read_is_refused(made: Path, tmp_path: Path, mode: int) -> None:
    key = tmp_path / "key.pem"
    shutil.copy(made / "key.pem", key)
    key.chmod(mode)
    with pytest.raises(ValueError, match="chmod 600"):
        publish(made / "set", tmp_path / "new", made / "noise.db", sign_key=key)
    assert not (tmp_path / "new").exists()


def test_the_command_line(made: Path, copy: Path) -> None:
    def run(*arguments: object) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["verify", *map(str, arguments)])
        return result.exit_code, result.output

    code, text = run(copy, "--signer", made / "key.pub")
    assert code == 0
    assert "version 1.2" in text
    (copy / "train/added.txt").write_text("x")
    code, text = run(copy, "--signer", made / "key.pub")
    assert code == 1
    assert "train/added.txt: added" in text
    assert run(copy, "--signer", made / "key.pem")[0] == 1  # no public key
    assert run(copy / "no", "--signer", made / "key.pub")[0] == 1
    assert run(copy)[0] == run(copy, "--store", made / "noise.db")[0] == 2
    for options in ((), ("--signer", made / "key.pub")):
        code, text = run(made / "set", copy, *options)
        assert code == 1
        assert "no noise store at" in text
    assert run(copy, "--signer", made / "key.pub", "--num-shards", 2)[0] == 2
    assert run(made / "set", made / "out", "--store", made / "noise.db", "--signer", made / "key.pub")[0] == 0


def test_a_single_file_has_its_manifest_beside_it(made: Path, tmp_path: Path) -> None:
    import numpy as np

    rng = np.random.default_rng(0)
    labels = [[0], [1]] * 2
    np.savez(tmp_path / "set.npz", train_images=rng.integers(0, 256, (4, 8, 8), "uint8"), train_labels=labels)
    protect(tmp_path / "set.npz", tmp_path / "noise.db")
    output = tmp_path / "public/set.npz"
    publish(tmp_path / "set.npz", output, tmp_path / "noise.db", sign_key=made / "key.pem")
    assert verify_copy(output, made / "key.pub")[0].ok
    output.write_bytes(output.read_bytes() + b"x")
    assert verify_copy(output, made / "key.pub")[0].problems == ["set.npz: changed since its owner signed it"]
