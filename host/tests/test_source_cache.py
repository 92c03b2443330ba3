"""Images that the node keeps: asked about each time, bounded, and never taken on trust."""

from __future__ import annotations

import contextlib
import gzip
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from simulated_source import MIB, Heard, LoopbackServer, QuietHandler, answering, copied, image_bytes
from snf_image_contract.names import ImageFormat
from snf_image_host.copying import CopyResult
from snf_image_host.deployment import FetchPolicy, ImageSource, SourceSettings
from snf_image_host.errors import NodeError, UserError, VerificationError
from snf_image_host.fetching.curl import Condition, Head, place_of
from snf_image_host.image_container import Container

pytestmark = pytest.mark.requires("curl")


class Handler(QuietHandler):
    server: Server

    def answer(self) -> None:
        server = self.server
        path = self.path.partition("?")[0]
        if server.password and server.password not in self.path:
            self._say(403, b"", {})
            return
        if path in server.redirects:
            self._say(302, b"", {"Location": server.redirects[path]})
            return
        body, fields = server.files[path]
        asked = self.headers.get("If-None-Match"), self.headers.get("If-Modified-Since")
        known = fields.get("ETag"), fields.get("Last-Modified")
        unchanged = any(
            mine is not None and mine == theirs for mine, theirs in zip(known, asked, strict=True)
        )
        server.seen.append((path, 304 if unchanged else 200))
        self._say(304 if unchanged else 200, b"" if unchanged else body, fields)

    def _say(self, status: int, body: bytes, fields: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in fields.items():
            self.send_header(name, value)
        if status != 304:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body)


class Server(LoopbackServer):
    def __init__(self) -> None:
        super().__init__(Handler)
        self.files: dict[str, tuple[bytes, dict[str, str]]] = {}
        self.redirects: dict[str, str] = {}
        self.seen: list[tuple[str, int]] = []
        self.password = ""


class Place(Heard):
    def __init__(self, directory: Path, server: Server) -> None:
        super().__init__()
        self.directory = directory
        self.server = server
        self.cache = directory / "cache"
        self._disks = 0

    def deploy(
        self, path: str = "/a", *, limit: int = 8 * MIB, sha256: str | None = None, on: bool = True
    ) -> tuple[bytes, CopyResult]:
        """What arrives on a new disk."""
        source = ImageSource(
            path=self.server.url(path),
            shown="the-image",
            format=ImageFormat.DISKDUMP,
            kind="url",
            container="auto",
            sha256=sha256,
            settings=SourceSettings(
                fetch=FetchPolicy(hosts=("127.0.0.1",), timeout=5, idle_timeout=5),
                containers=frozenset(Container),
                runtime_dir=str(self.directory / "run"),
                cache_dir=str(self.cache) if on else None,
                cache_size=limit,
            ),
        )
        self._disks += 1
        disk = self.directory / f"disk{self._disks}"
        result = copied(source, disk, size=4 * MIB, sink=self, idle_timeout=20)
        return disk.read_bytes()[: result.image_bytes], result

    def contents(self) -> list[Path]:
        return sorted((self.cache / "contents").iterdir())


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with answering(Server()) as server:
        yield Place(tmp_path, server)


def test_it_is_off_unless_the_operator_wants_it(place: Place) -> None:
    place.server.files["/a"] = image_bytes(1), {"ETag": '"1"'}
    for _ in range(2):
        assert place.deploy(on=False)[0] == image_bytes(1)
    assert place.server.seen == [("/a", 200), ("/a", 200)]
    assert not place.cache.exists()


@pytest.mark.parametrize(
    "fields", [{"ETag": '"1"'}, {"ETag": 'W/"1"'}, {"Last-Modified": "Sat, 21 Nov 2026 10:00:00 GMT"}]
)
def test_the_second_time_nothing_is_fetched(fields: dict[str, str], place: Place) -> None:
    """R-SRC-NET-2: the server says that nothing has changed; digests are the same."""
    place.server.files["/a"] = gzip.compress(image_bytes(1)), fields
    first, second = place.deploy(), place.deploy()
    assert first[0] == second[0] == image_bytes(1)
    assert first[1].source_sha256 == second[1].source_sha256 is not None
    assert [status for _, status in place.server.seen] == [200, 304]
    (content,) = place.contents()
    assert content.name == first[1].source_sha256
    assert content.stat().st_mode & 0o077 == 0


def test_a_new_image_is_fetched(place: Place) -> None:
    """T-11: what the server has now is what is deployed."""
    place.server.files["/a"] = image_bytes(1), {"ETag": '"1"'}
    place.deploy()
    place.server.files["/a"] = image_bytes(2), {"ETag": '"2"'}
    assert place.deploy()[0] == image_bytes(2)
    assert place.deploy()[0] == image_bytes(2)
    assert [status for _, status in place.server.seen] == [200, 200, 304]


def test_equal_images_are_kept_once(place: Place) -> None:
    place.server.files["/a"] = image_bytes(1), {"ETag": '"1"'}
    place.server.files["/b"] = image_bytes(1), {"ETag": '"x"'}
    place.deploy("/a")
    place.deploy("/b")
    assert len(place.contents()) == 1
    place.deploy("/a")
    place.deploy("/b")
    assert [status for _, status in place.server.seen] == [200, 200, 304, 304]


def test_the_server_decides_who_may_have_it(place: Place) -> None:
    """R-SEC-2: another request without the right to it gets nothing; nothing secret of a URL is kept."""
    place.server.files["/a"] = image_bytes(1), {"ETag": '"1"'}
    place.server.password = "t0psecret"
    place.deploy("/a?token=t0psecret")
    for path in ("/a", "/a?token=guess"):
        with pytest.raises(UserError, match="status 403"):
            place.deploy(path)
    for root, _, names in os.walk(place.cache):
        for name in names:
            assert b"t0psecret" not in Path(root, name).read_bytes()
            assert "t0psecret" not in name


def test_validators_belong_to_where_they_came_from(place: Place) -> None:
    """R-FETCH-2: a redirect that leads elsewhere now is not asked by the old one's."""
    place.server.files["/a"] = image_bytes(1), {"ETag": '"same"'}
    place.server.files["/b"] = image_bytes(2), {"ETag": '"same"'}
    place.server.redirects["/go"] = "/a?signed=1"
    assert place.deploy("/go")[0] == image_bytes(1)
    place.server.redirects["/go"] = "/a?signed=2"
    assert place.deploy("/go")[0] == image_bytes(1)
    place.server.redirects["/go"] = "/b"
    assert place.deploy("/go")[0] == image_bytes(2)
    assert [status for _, status in place.server.seen] == [200, 304, 200]


def test_a_damaged_copy_is_noticed_and_forgotten(place: Place) -> None:
    """D-4: the disk does not boot, and the next time it is fetched."""
    place.server.files["/a"] = image_bytes(1), {"ETag": '"1"'}
    place.deploy()
    (content,) = place.contents()
    data = bytearray(content.read_bytes())
    data[MIB // 2] ^= 1
    content.write_bytes(data)
    with pytest.raises(VerificationError, match="is damaged"):
        place.deploy()
    assert place.contents() == []
    assert place.deploy()[0] == image_bytes(1)


def test_a_wrong_image_is_not_kept(place: Place) -> None:
    place.server.files["/a"] = image_bytes(1), {"ETag": '"1"'}
    with pytest.raises(VerificationError):
        place.deploy(sha256="0" * 64)
    assert place.contents() == []


def test_it_is_bounded(place: Place) -> None:
    """What was not used for longest goes first; what is too large is not kept at all."""
    for number in range(4):
        place.server.files[f"/{number}"] = image_bytes(number), {"ETag": f'"{number}"'}
    for number in (0, 1, 0, 2):
        place.deploy(f"/{number}", limit=2 * MIB + 4096)
    place.server.seen.clear()
    for number in (0, 2, 1):
        place.deploy(f"/{number}", limit=2 * MIB + 4096)
    assert [status for _, status in place.server.seen] == [304, 304, 200]
    assert len(place.contents()) == 2
    place.deploy("/3", limit=MIB)
    assert any("larger than IMAGE_CACHE_SIZE" in warning for warning in place.warnings)
    assert sum(path.stat().st_size for path in place.contents()) <= 2 * MIB + 4096
    assert len(list((place.cache / "urls").iterdir())) == 2


def test_broken_notes_count_as_none(place: Place) -> None:
    place.server.files["/a"] = image_bytes(1), {"ETag": '"1"'}
    place.deploy()
    (note,) = (place.cache / "urls").iterdir()
    for text in (
        "",
        "{",
        "[]",
        '{"digest": "../../etc/passwd"}',
        '{"digest": 5}',
        '{"digest": "' + "a" * 64 + '"}',
    ):
        note.write_text(text)
        assert place.deploy()[0] == image_bytes(1)
    assert {status for _, status in place.server.seen} == {200}


def test_several_at_once(place: Place) -> None:
    """Each gets its image, whatever the others do with the cache; in the end it is whole."""
    for number in range(3):
        place.server.files[f"/{number}"] = image_bytes(number), {"ETag": f'"{number}"'}
    places = [Place(place.directory / f"p{number}", place.server) for number in range(3)]
    wrong: list[object] = []

    def work(mine: Place, first: int) -> None:
        for step in range(4):
            number = (first + step) % 3
            if mine.deploy(f"/{number}", limit=2 * MIB + 4096)[0] != image_bytes(number):
                wrong.append(number)

    threads = []
    for number, mine in enumerate(places):
        mine.directory.mkdir()
        mine.cache = place.cache
        threads.append(threading.Thread(target=work, args=(mine, number)))
        threads[-1].start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert sum(path.stat().st_size for path in place.contents()) <= 2 * MIB + 4096


def test_a_directory_that_others_can_change_is_refused(place: Place) -> None:
    place.server.files["/a"] = image_bytes(1), {"ETag": '"1"'}
    place.cache.mkdir()
    place.cache.chmod(0o777)
    with pytest.raises(NodeError, match="can be changed by others"):
        place.deploy()


def test_what_can_be_asked_again() -> None:
    def condition(**fields: str) -> Condition | None:
        named = {name.replace("_", "-"): value for name, value in fields.items()}
        return Condition.of("https://h/a", Head(status=200, fields=named))

    assert condition() is None
    assert condition(etag='"a"', cache_control="private, no-store") is None
    assert condition(etag='"a\rX: y"') is None
    found = condition(etag='"a"', last_modified="x")
    assert found is not None
    assert found.headers == (("If-None-Match", '"a"'),)
    assert place_of("HTTPS://me:pw@H/a?x#y") == place_of("https://h/a") != place_of("https://h/A")
