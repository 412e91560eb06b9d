"""Signing the manifest and encrypting the store: who may read, who wrote."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import docs_samples
import numpy as np
import pytest

from monai_salm.generate.precompute import precompute
from monai_salm.layouts import detect
from monai_salm.methods import RandomNoise
from monai_salm.noise.window import IntensityWindow
from monai_salm.publishing import PublishError, publish, restore, verify
from monai_salm.publishing.sharing import decrypt_store, encrypt_store
from monai_salm.store.store import NoiseStore, NoiseStoreError

pytest.importorskip("cryptography")
pyrage = pytest.importorskip("pyrage")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An archive ``set.npz``, its store ``noise.db``, and an Ed25519 key pair."""
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "set.npz", train_images=rng.integers(0, 256, (4, 8, 8), "uint8"), train_labels=[[0], [1]] * 2)
    data = detect(tmp_path / "set.npz")
    window = IntensityWindow(0, 255)
    precompute(
        data.dataset(), tmp_path / "noise.db", method=RandomNoise(), task=data.task(), window=window, device="cpu"
    )
    for name in ("key", "other"):
        docs_samples.signing_keys(tmp_path, name)
    return tmp_path


def test_signed_manifest_is_verified_and_a_changed_one_is_not(folder: Path) -> None:
    output, store = folder / "out/set.npz", folder / "noise.db"
    publish(folder / "set.npz", output, store, sign_key=folder / "key.pem")
    assert {path.name for path in output.parent.iterdir()} == {"set.npz", "set.npz.salm.json", "set.npz.salm.json.sig"}
    assert verify(folder / "set.npz", output, store, signer=folder / "key.pub").ok
    (problem,) = verify(folder / "set.npz", output, store, signer=folder / "other.pub").problems
    assert "was not signed with the private key of" in problem
    manifest = output.with_name("set.npz.salm.json")
    manifest.write_text(manifest.read_text().replace("imperceptible", "invisible"))
    assert any("not signed" in p for p in verify(folder / "set.npz", output, store, signer=folder / "key.pub").problems)


def test_unsigned_copy_replaces_an_old_signature(folder: Path) -> None:
    output, store = folder / "out/set.npz", folder / "noise.db"
    publish(folder / "set.npz", output, store, sign_key=folder / "key.pem")
    publish(folder / "set.npz", output, store, overwrite=True)
    (problem,) = verify(folder / "set.npz", output, store, signer=folder / "key.pub").problems
    assert "missing; the manifest is not signed" in problem


def test_wrong_keys_are_refused_before_anything_is_written(folder: Path) -> None:
    (folder / "no.pem").write_text("x")
    (folder / "no.pem").chmod(0o600)
    (folder / "key.pub").chmod(0o600)
    for key, message in (("no.pem", "no private key in PEM"), ("key.pub", "no private key in PEM")):
        with pytest.raises(ValueError, match=message):
            publish(folder / "set.npz", folder / "out/set.npz", folder / "noise.db", sign_key=folder / key)
        assert not (folder / "out").exists() or not any((folder / "out").iterdir())


def test_store_comes_back_for_the_recipient_only(folder: Path) -> None:
    mine, other = pyrage.x25519.Identity.generate(), pyrage.x25519.Identity.generate()
    (folder / "mine.txt").write_text(f"# my key\n{mine}\n")
    (folder / "other.txt").write_text(str(other))
    encrypt_store(folder / "noise.db", folder / "noise.age", [str(mine.to_public())])
    assert b"SQLite" not in (folder / "noise.age").read_bytes()
    decrypt_store(folder / "noise.age", folder / "back.db", folder / "mine.txt")
    mine_back, original = NoiseStore(folder / "back.db"), NoiseStore(folder / "noise.db")
    assert mine_back.meta == original.meta
    assert all(np.array_equal(mine_back[noise.digest].codes, noise.codes) for noise in original)
    assert (folder / "back.db").stat().st_mode & 0o777 == 0o600
    assert len(NoiseStore(folder / "back.db")) == 4
    with pytest.raises(NoiseStoreError, match="cannot be decrypted"):
        decrypt_store(folder / "noise.age", folder / "theirs.db", folder / "other.txt")
    damaged = bytearray((folder / "noise.age").read_bytes())
    damaged[-20] ^= 1
    (folder / "noise.age").write_bytes(damaged)
    with pytest.raises(NoiseStoreError, match="cannot be decrypted"):
        decrypt_store(folder / "noise.age", folder / "theirs.db", folder / "mine.txt")
    assert not (folder / "theirs.db").exists()


def test_the_owners_record_stays_with_the_owner(folder: Path) -> None:
    """It holds paths, and with them names of users; what undoing the noise takes goes along."""
    publish(folder / "set.npz", folder / "out/set.npz", folder / "noise.db")
    mine = pyrage.x25519.Identity.generate()
    (folder / "mine.txt").write_text(str(mine))
    encrypt_store(folder / "noise.db", folder / "noise.age", [str(mine.to_public())])
    decrypt_store(folder / "noise.age", folder / "back.db", folder / "mine.txt")
    assert str(folder).encode() in (folder / "noise.db").read_bytes()
    assert str(folder).encode() not in (folder / "back.db").read_bytes()
    report = restore(folder / "out/set.npz", folder / "restored/set.npz", NoiseStore(folder / "back.db", unsigned=True))
    assert report.images == 4
    assert "nothing proves that these are the originals" in report.warnings[0]
    assert "record of the copy" in report.warnings[1]
    (folder / "public").mkdir()
    (folder / "public/monai_salm.json").write_text("{}")
    with pytest.raises(PublishError, match="would go public"):
        decrypt_store(folder / "noise.age", folder / "public/a.db", folder / "mine.txt")


def test_what_cannot_be_encrypted_is_refused(folder: Path) -> None:
    key = str(pyrage.x25519.Identity.generate().to_public())
    with pytest.raises(ValueError, match="at least one recipient"):
        encrypt_store(folder / "noise.db", folder / "a", [])
    with pytest.raises(ValueError, match="'age1x' is no age or ssh public key"):
        encrypt_store(folder / "noise.db", folder / "a", ["age1x"])
    with pytest.raises(NoiseStoreError):
        encrypt_store(folder / "set.npz", folder / "a", [key])
    with pytest.raises(FileExistsError):
        encrypt_store(folder / "noise.db", folder / "set.npz", [key])
    (folder / "key.txt").write_text("# nothing\n")
    encrypt_store(folder / "noise.db", folder / "a", [key])
    with pytest.raises(ValueError, match="holds no age identity"):
        decrypt_store(folder / "a", folder / "b", folder / "key.txt")


@pytest.mark.parametrize(("package", "module"), [("cryptography", "signing"), ("pyrage", "sharing")])
def test_missing_package_names_the_extra(package: str, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where = importlib.import_module(f"monai_salm.publishing.{module}")
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r'pip install "monai_salm\[crypto\]"'):
        where._age() if module == "sharing" else where._load(Path("x"), True)
