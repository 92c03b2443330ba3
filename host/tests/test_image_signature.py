"""Signatures of an image itself: checked on its bytes as they pass, and before anything boots."""

from __future__ import annotations

import contextlib
import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from simulated_source import MIB, Heard, copied, image_bytes
from snf_image_contract.names import ImageFormat
from snf_image_host.deployment import ImageSource, SourceSettings, Verification, VerifyPolicy
from snf_image_host.errors import ImageError, NodeError, UserError, VerificationError
from snf_image_host.image_container import Container
from snf_image_host.sources.ed25519 import Ed25519Verification
from snf_image_process import run

DATA: Final = image_bytes(4, 3 * MIB)
_ORDER: Final = 2**252 + 27742317777372353535851937790883648493


def is_good(signature: bytes, key: bytes, *parts: bytes) -> bool:
    verification = Ed25519Verification(signature, key)
    for part in parts:
        verification.update(part)
    return verification.is_good()


def raw(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


@settings(max_examples=20, deadline=None)
@given(seed=st.binary(min_size=32, max_size=32), message=st.binary(max_size=300), flip=st.integers(0, 767))
def test_it_agrees_with_others(seed: bytes, message: bytes, flip: int) -> None:
    """D-4: what another implementation signs is good; with any bit changed it is not."""
    private = Ed25519PrivateKey.from_private_bytes(seed)
    key, signature = raw(private), private.sign(message)
    assert is_good(signature, key, message[:7], message[7:])
    assert not is_good(signature, key, message, b"x")
    both = bytearray(signature + key)
    both[flip // 8] ^= 1 << flip % 8
    assert not is_good(bytes(both[:64]), bytes(both[64:]), message)


def test_the_published_example() -> None:
    """The third one of RFC 8032, section 7.1."""
    key = bytes.fromhex("fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025")
    signature = bytes.fromhex(
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
        "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
    )
    assert is_good(signature, key, b"\xaf\x82")


def test_a_signature_has_one_form() -> None:
    """The same number in another way of writing it is another signature, which nobody made."""
    private = Ed25519PrivateKey.from_private_bytes(bytes(32))
    signature = private.sign(b"m")
    larger = int.from_bytes(signature[32:], "little") + _ORDER
    assert not is_good(signature[:32] + larger.to_bytes(32, "little"), raw(private), b"m")
    for key in (b"\xff" * 32, (2**255 - 19).to_bytes(32, "little"), b"\x02" + bytes(31)):
        assert not is_good(signature, key, b"m")


class Place(Heard):
    """An image, a disk that was used, trusted keys."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.directory = directory
        self.disk = directory / "disk"
        self.image = directory / "x.raw"
        self.keys = directory / "keys"
        self.keys.mkdir()
        self.image.write_bytes(DATA)
        self.disk.write_bytes(b"\xff" * 6 * MIB)
        self.key = Ed25519PrivateKey.generate()

    def trust(self, key: Ed25519PrivateKey, name: str = "ours.pem") -> None:
        pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (self.keys / name).write_bytes(pem)

    def sign(self) -> Path:
        path = self.directory / "x.raw.sig"
        path.write_bytes(self.key.sign(self.image.read_bytes()))
        return path

    def copy(
        self, policy: VerifyPolicy = "if-present", *, signature: Path | None = None, container: str = "raw"
    ) -> bool:
        """Whether the image is on the disk."""
        source = ImageSource(
            path=str(self.image),
            shown="x.raw",
            format=ImageFormat.DISKDUMP,
            container=container,
            verification=Verification(
                policy=policy,
                signature=None if signature is None else str(signature),
                trusted_keys=str(self.keys),
            ),
            settings=SourceSettings(runtime_dir=str(self.directory / "run"), containers=frozenset(Container)),
        )
        copied(source, self.disk, sink=self)
        return self.disk.read_bytes()[: len(DATA)] == DATA

    def ends_are_wiped(self) -> bool:
        got = self.disk.read_bytes()
        return not any(got[:MIB]) and not any(got[-MIB:])


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_good_one(place: Place) -> None:
    """D-4: with the key trusted it satisfies `require`; one of several keys is enough."""
    place.sign()
    with pytest.raises(ImageError, match="not signed by a trusted key"):
        place.copy("require")
    place.trust(Ed25519PrivateKey.generate(), "another.pem")
    place.trust(place.key)
    assert place.copy("require")
    assert place.copy("if-present")
    assert place.warnings == []


@pytest.mark.parametrize("policy", ["require", "if-present"])
def test_an_image_that_was_changed(policy: VerifyPolicy, place: Place) -> None:
    """D-4, D-12: exit status 3, and neither end of the disk is left."""
    place.sign()
    place.trust(place.key)
    data = bytearray(DATA)
    data[2 * MIB] ^= 1
    place.image.write_bytes(data)
    with pytest.raises(VerificationError, match=r"x\.raw\.sig is not one of this image") as caught:
        place.copy(policy)
    assert caught.value.exit_code == 3
    assert place.ends_are_wiped()


def test_off_looks_at_nothing(place: Place) -> None:
    place.sign()
    place.trust(Ed25519PrivateKey.generate())
    assert place.copy("off")


def test_one_that_is_given(place: Place) -> None:
    """D-4: --signature counts whatever the policy, and an unknown key is an error then."""
    signature = place.sign().rename(place.directory / "elsewhere")
    with pytest.raises(VerificationError, match="by no key in TRUSTED_KEYS_DIR"):
        place.copy("off", signature=signature)
    assert place.ends_are_wiped()
    place.trust(place.key)
    assert place.copy("off", signature=signature)
    with pytest.raises(UserError, match="cannot be read"):
        place.copy(signature=place.directory / "none")


def test_published_bytes_are_what_is_signed(place: Place) -> None:
    """D-4: a compressed image is signed as it is; bytes behind what the decoder wants count."""
    place.image.write_bytes(gzip.compress(DATA))
    place.sign()
    place.trust(place.key)
    assert place.copy("require", container="gzip")
    with place.image.open("ab") as file:
        file.write(gzip.compress(b""))
    with pytest.raises(VerificationError):
        place.copy("require", container="gzip")


@pytest.mark.requires("qemu-img", "qemu")
def test_a_disk_format_is_verified_before_qemu_looks_at_it(place: Place) -> None:
    """D-4."""
    plain = place.directory / "plain"
    place.image.rename(plain)
    run(["qemu-img", "convert", "-O", "qcow2", str(plain), str(place.image)], timeout=60)
    place.sign()
    place.trust(place.key)
    assert place.copy("require", container="qcow2")
    place.disk.write_bytes(b"\xff" * 6 * MIB)
    with place.image.open("r+b") as file:
        file.seek(200)
        file.write(b"x")
    with pytest.raises(VerificationError):
        place.copy("require", container="qcow2")
    assert place.disk.read_bytes() == b"\xff" * 6 * MIB


def test_a_key_of_another_kind(place: Place) -> None:
    """D-4: it is the operator's, and is not passed over in silence."""
    place.sign()
    (place.keys / "x.pem").write_text("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
    with pytest.raises(NodeError, match="no public key of Ed25519"):
        place.copy()


@pytest.mark.requires("openssl")
def test_openssl_makes_them(place: Place) -> None:
    """D-4: as the documentation says."""
    private, public = place.directory / "private", place.keys / "ours.pem"
    run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(private)], timeout=30)
    run(["openssl", "pkey", "-in", str(private), "-pubout", "-out", str(public)], timeout=30)
    words = ["openssl", "pkeyutl", "-sign", "-inkey", str(private), "-rawin", "-in", str(place.image)]
    run([*words, "-out", f"{place.image}.sig"], timeout=30)
    assert place.copy("require")


@pytest.fixture
def gpg(place: Place) -> Iterator[list[str]]:
    home = place.directory / "g"
    home.mkdir(mode=0o700)
    words = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--pinentry-mode", "loopback"]
    words += ["--passphrase", ""]
    run([*words, "--quick-generate-key", "ours@example.test", "ed25519", "sign"], timeout=60)
    yield words
    with contextlib.suppress(OSError):
        run(["gpgconf", "--homedir", str(home), "--kill", "all"], timeout=30)


@pytest.mark.requires("gpg")
def test_openpgp(place: Place, gpg: list[str]) -> None:
    """D-4: by gpgv, which reads along."""
    signature = f"{place.image}.asc"
    run([*gpg, "--armor", "--detach-sign", "--output", signature, str(place.image)], timeout=60)
    place.trust(place.key)
    # No keyring: it is by no key that is known.
    assert place.copy("if-present")
    assert any("proves nothing" in warning for warning in place.warnings)
    with pytest.raises(VerificationError, match="by no key"):
        place.copy("require")
    (place.keys / "ours.gpg").write_bytes(run([*gpg, "--export"], timeout=60).stdout)
    assert place.copy("require")
    place.image.write_bytes(DATA[:-1] + b"x")
    with pytest.raises(VerificationError, match="not one of this image"):
        place.copy("if-present")
    assert place.ends_are_wiped()
