"""Checksum files and their signatures: what is looked for, what counts, what a mismatch leaves."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from simulated_source import MIB, Heard, copied
from snf_image_contract.names import ImageFormat
from snf_image_host.copying import CopyResult
from snf_image_host.deployment import ImageSource, SourceSettings, Verification, VerifyPolicy
from snf_image_host.errors import ImageError, NodeError, UserError, VerificationError
from snf_image_host.sources.checksums import digests_of
from snf_image_process import run

DATA = bytes(510) + b"\x55\xaa" + bytes(range(256)) * 8192
SHA256 = hashlib.sha256(DATA).hexdigest()
SHA512 = hashlib.sha512(DATA).hexdigest()
WRONG = "0" * 64


class Place(Heard):
    """A directory with an image, a disk and trusted keys."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.directory = directory
        self.disk = directory / "disk"
        self.image = directory / "x.raw"
        self.keys = directory / "keys"
        self.keys.mkdir()
        self.image.write_bytes(DATA)
        self.disk.write_bytes(b"\xff" * 4 * MIB)

    def put(self, name: str, text: str | bytes) -> Path:
        path = self.directory / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def copy(
        self,
        *,
        policy: VerifyPolicy = "if-present",
        checksums: Path | None = None,
        signature: Path | None = None,
        sha512: str | None = None,
    ) -> CopyResult:
        source = ImageSource(
            path=str(self.image),
            shown="x.raw",
            format=ImageFormat.DISKDUMP,
            verification=Verification(
                policy=policy,
                sha512=sha512,
                checksums=str(checksums) if checksums else None,
                signature=str(signature) if signature else None,
                trusted_keys=str(self.keys),
            ),
            settings=SourceSettings(runtime_dir=str(self.directory / "run")),
        )
        return copied(source, self.disk, sink=self)

    def is_untouched(self) -> bool:
        return self.disk.read_bytes() == b"\xff" * 4 * MIB


@pytest.fixture
def place() -> Iterator[Place]:
    # Short: gpg-agent's socket is in it.
    with tempfile.TemporaryDirectory(prefix="v") as directory:
        yield Place(Path(directory))


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (f"{SHA256}  x.raw", {"sha256": SHA256}),
        (f"{SHA256} *x.raw", {"sha256": SHA256}),
        (f"{SHA512.upper()}  ./x.raw", {"sha512": SHA512}),
        (f"SHA256 (x.raw) = {SHA256}", {"sha256": SHA256}),
        (f"SHA512 (x.raw) = {SHA512}\n{SHA256}  x.raw\r\n", {"sha512": SHA512, "sha256": SHA256}),
        (SHA256, {"sha256": SHA256}),
        (f"{SHA256}  other\n{SHA512}  x.raw.zst\n", {}),
        (f"{SHA256}  x.raw\n{WRONG}  x.raw\n", {}),
        (f"{SHA256}  dir/x.raw", {}),
        ("d41d8cd98f00b204e9800998ecf8427e  x.raw", {}),
        ("<html>not found</html>", {}),
        ("\0\xff", {}),
    ],
)
def test_checksum_files_as_they_are_written(line: str, found: dict[str, str]) -> None:
    """D-4: a line must be about the image, and lines must agree."""
    assert digests_of("x.raw", line.encode()) == found


@pytest.mark.parametrize("name", ["x.raw.sha256", "SHA256SUMS"])
def test_what_lies_beside_an_image_counts(name: str, place: Place) -> None:
    """D-4: a right one is silent, a wrong one ends the deployment and wipes both ends of the disk."""
    place.put(name, f"{SHA256}  x.raw\n")
    assert place.copy().sha256 == SHA256
    place.put(name, f"{WRONG}  x.raw\n")
    place.disk.write_bytes(b"\xff" * 4 * MIB)
    with pytest.raises(VerificationError, match=f"has sha256 {SHA256}, {name} says {WRONG}"):
        place.copy()
    left = place.disk.read_bytes()
    assert not any(left[:MIB])
    assert not any(left[-MIB:])
    assert place.copy(policy="off").sha256 == SHA256


def test_digests_that_were_asked_for_count_whatever_the_policy(place: Place) -> None:
    """D-4."""
    place.copy(policy="off", sha512=SHA512.upper())
    with pytest.raises(VerificationError, match="--sha512 says"):
        place.copy(policy="off", sha512="1" * 128)
    with pytest.raises(VerificationError, match="has sha256"):
        place.copy(policy="off", checksums=place.put("sums", f"{WRONG}  x.raw"))


def test_a_named_checksum_file_must_be_about_the_image(place: Place) -> None:
    """D-4: before a byte is written."""
    with pytest.raises(UserError, match=r"has no digest for x\.raw"):
        place.copy(checksums=place.put("sums", f"{SHA256}  y.raw"))
    with pytest.raises(UserError, match="cannot be read"):
        place.copy(checksums=place.directory / "none")
    assert place.is_untouched()


def ed25519(place: Place, document: Path, *, key: str = "key") -> bytes:
    """A signature as openssl makes it; the public half is left in ``key``.pub."""
    private, public = place.directory / f"{key}.private", place.directory / f"{key}.pub"
    run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(private)], timeout=30)
    run(["openssl", "pkey", "-in", str(private), "-pubout", "-out", str(public)], timeout=30)
    signature = place.directory / "made.sig"
    sign = ["openssl", "pkeyutl", "-sign", "-inkey", str(private), "-rawin", "-in", str(document)]
    run([*sign, "-out", str(signature)], timeout=30)
    return signature.read_bytes()


@pytest.mark.requires("openssl")
def test_ed25519(place: Place) -> None:
    """D-4: require means a good signature by a trusted key; anything else writes nothing."""
    sums = place.put("SHA256SUMS", f"{SHA256}  x.raw\n")
    place.put("SHA256SUMS.sig", ed25519(place, sums))
    with pytest.raises(ImageError, match="not signed by a trusted key"):
        place.copy(policy="require")
    (place.keys / "ours.pem").write_bytes((place.directory / "key.pub").read_bytes())
    place.copy(policy="require")
    place.disk.write_bytes(b"\xff" * 4 * MIB)
    place.put("SHA256SUMS", f"{SHA256}  x.raw\n{WRONG}  y.raw\n")
    policies: tuple[VerifyPolicy, ...] = ("require", "if-present")
    for policy in policies:
        with pytest.raises(VerificationError, match="not one of these bytes"):
            place.copy(policy=policy)
    assert place.is_untouched()


@pytest.mark.requires("openssl")
def test_a_signature_of_a_stranger_is_worth_nothing(place: Place) -> None:
    """D-4: a key that is trusted must have made it."""
    sums = place.put("SHA256SUMS", f"{SHA256}  x.raw\n")
    place.put("SHA256SUMS.sig", ed25519(place, sums, key="stranger"))
    ed25519(place, sums, key="ours")
    (place.keys / "ours.pem").write_bytes((place.directory / "ours.pub").read_bytes())
    with pytest.raises(VerificationError):
        place.copy(policy="require")
    assert place.is_untouched()


@pytest.mark.requires("openssl")
def test_an_unsigned_file_does_not_hide_a_signed_one(place: Place) -> None:
    """D-4: every checksum file beside the image must be right; one of them must be signed."""
    sums = place.put("SHA512SUMS", f"{SHA512}  x.raw\n")
    place.put("SHA512SUMS.sig", ed25519(place, sums))
    (place.keys / "ours.pem").write_bytes((place.directory / "key.pub").read_bytes())
    place.put("x.raw.sha256", f"{SHA256}\n")
    place.copy(policy="require")
    place.put("x.raw.sha256", f"{WRONG}\n")
    with pytest.raises(VerificationError):
        place.copy(policy="require")


@pytest.mark.requires("gpg")
def test_openpgp(place: Place) -> None:
    """D-4: keyrings in binary and in armor, signatures in both too."""
    home = place.directory / "g"
    home.mkdir(mode=0o700)
    gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--pinentry-mode", "loopback"]
    gpg += ["--passphrase", ""]
    run([*gpg, "--quick-generate-key", "ours@example.test", "ed25519", "sign"], timeout=60)
    sums = place.put("SHA256SUMS", f"{SHA256}  x.raw\n")
    run([*gpg, "--armor", "--detach-sign", "--output", f"{sums}.asc", str(sums)], timeout=60)
    place.copy()
    with pytest.raises(ImageError, match="not signed by a trusted key"):
        place.copy(policy="require")
    for name, words in (("ours.gpg", ["--export"]), ("ours.asc", ["--armor", "--export"])):
        (place.keys / name).write_bytes(run([*gpg, *words], timeout=60).stdout)
        place.copy(policy="require")
        (place.keys / name).unlink()
    (place.keys / "ours.asc").write_bytes(run([*gpg, "--armor", "--export"], timeout=60).stdout)
    place.put("SHA256SUMS", f"{WRONG}  x.raw\n")
    with pytest.raises(VerificationError, match="not one of these bytes"):
        place.copy()
    run(["gpgconf", "--homedir", str(home), "--kill", "all"], timeout=30)


def test_keys_that_others_can_change_are_not_trusted(place: Place) -> None:
    """D-4."""
    place.put("SHA256SUMS", f"{SHA256}  x.raw\n")
    key = place.keys / "ours.pem"
    key.write_text("x")
    key.chmod(0o666)
    with pytest.raises(NodeError, match="can be changed by others"):
        place.copy()


def test_a_key_that_is_none(place: Place) -> None:
    """D-4: a key file is the operator's; it is not passed over in silence."""
    place.put("SHA256SUMS", f"{SHA256}  x.raw\n")
    (place.keys / "ours.asc").write_text("no armor")
    with pytest.raises(NodeError, match="armor"):
        place.copy()
