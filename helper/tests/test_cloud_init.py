"""The seed, the fragments and the version of the image's cloud-init."""

from __future__ import annotations

import base64
import configparser
import io
import logging.config
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import trees
from snf_image_contract.job import InitializeDatasource
from snf_image_contract.names import TaskName
from snf_image_contract.secret import Secret
from snf_image_helper.errors import ImageError, RequestError
from snf_image_helper.guest import Guest
from snf_image_helper.linux import cloud_init, yaml_text
from snf_image_process import run
from trees import Directory, Fifo, File, GuestOf, Link, Tree

FRAGMENTS = "/etc/cloud/cloud.cfg.d"
SEED = cloud_init.SEED_DIRECTORY
PER_ONCE = cloud_init.PER_ONCE_DIRECTORY
IMAGE: Tree = {FRAGMENTS: Directory(), "/etc/cloud/cloud.cfg": "users: [default]\n"}


def datasource(
    user_data: bytes | None = b"#cloud-config\n", instance_id: str = "web1-4fd2"
) -> InitializeDatasource:
    secret = None if user_data is None else Secret(base64.b64encode(user_data).decode())
    return InitializeDatasource(user_data=secret, instance_id=instance_id)


def seeded(guest_of: GuestOf, tree: Tree = IMAGE, **fields: object) -> Guest:
    plain: dict[str, object] = {"cloud_init": True, "initialize_datasource": datasource()}
    guest = guest_of(tree, task=TaskName.INITIALIZE_DATASOURCE, **(plain | fields))
    cloud_init.initialize_datasource(guest)
    return guest


def load(guest: Guest, path: str) -> object:
    return yaml.safe_load(trees.content(guest, path))


# -- InitializeDatasource --------------------------------------------------------------------------


def test_without_cloud_init_nothing_happens(guest_of: GuestOf) -> None:
    """R-TASK-CI-1."""
    guest = seeded(guest_of, cloud_init=False)
    assert trees.changes(guest) == []
    assert "CLOUD_INIT" in trees.warnings(guest)[0]


def test_the_seed(guest_of: GuestOf) -> None:
    """R-TASK-CI-4."""
    guest = seeded(guest_of, initialize_datasource=datasource(b"#!/bin/sh\n\x00\xff\r\n"))
    assert load(guest, f"{SEED}/meta-data") == {"instance-id": "web1-4fd2"}
    assert trees.content(guest, f"{SEED}/user-data") == b"#!/bin/sh\n\x00\xff\r\n"
    assert [trees.mode(guest, f"{SEED}/{name}") for name in ("meta-data", "user-data")] == [0o600, 0o600]
    assert trees.warnings(guest) == []


def test_two_deployments_of_one_name_differ(guest_of: GuestOf) -> None:
    """R-TASK-CI-4, T-100: if the host gave no id, one is made."""
    guests = [seeded(guest_of, initialize_datasource=datasource(instance_id="")) for _ in range(2)]
    first, second = (load(guest, f"{SEED}/meta-data")["instance-id"] for guest in guests)  # type: ignore[index] # a mapping, or the test fails
    assert first != second
    assert first.startswith(f"{trees.INSTANCE}-")
    assert second.startswith(f"{trees.INSTANCE}-")


def test_no_user_data_is_a_warning(guest_of: GuestOf) -> None:
    """R-TASK-CI-4."""
    guest = seeded(guest_of, initialize_datasource=datasource(None))
    assert trees.content(guest, f"{SEED}/user-data") == b""
    assert "user-data" in trees.warnings(guest)[0]


def test_old_seeds_are_replaced(guest_of: GuestOf) -> None:
    """R-TASK-CI-4, R-TASK-CI-5: also the other seed directory, whose words would win."""
    guest = seeded(
        guest_of,
        {
            **IMAGE,
            f"{SEED}/meta-data": "instance-id: old\nlocal-hostname: old\n",
            f"{SEED}/network-config": "version: 1\n",
            f"{SEED}/vendor-data": File("#cloud-config\n", mode=0o644),
            "/var/lib/cloud/seed/nocloud/meta-data": "instance-id: older\n",
        },
    )
    assert load(guest, f"{SEED}/meta-data") == {"instance-id": "web1-4fd2"}
    assert sorted(guest.root.list(SEED)) == ["meta-data", "user-data"]
    assert not trees.exists(guest, "/var/lib/cloud/seed/nocloud")


def test_state_that_hides_the_seed_is_removed(guest_of: GuestOf) -> None:
    """R-TASK-CI-5."""
    guest = seeded(
        guest_of,
        {
            **IMAGE,
            "/var/lib/cloud/instances/old/obj.pkl": b"x",
            "/var/lib/cloud/instance": Link("/var/lib/cloud/instances/old"),
            "/var/lib/cloud/sem/config_scripts_per_once.once": "",
            "/run/cloud-init/instance-data.json": "{}",
            "/var/lib/cloud/scripts/per-boot/mine": "#!/bin/sh\n",
        },
    )
    for path in ("instances", "instance", "sem"):
        assert not trees.exists(guest, f"/var/lib/cloud/{path}"), path
    assert not trees.exists(guest, "/run/cloud-init")
    assert trees.exists(guest, "/var/lib/cloud/scripts/per-boot/mine")


def test_only_nocloud_is_asked(guest_of: GuestOf) -> None:
    """R-TASK-CI-2, R-TASK-CI-3: on one line, for ds-identify reads it with a shell parser."""
    guest = seeded(guest_of)
    text = trees.text(guest, f"{FRAGMENTS}/98_snf-image-35InitializeDatasource.cfg")
    assert "\ndatasource_list: [NoCloud]\n" in text
    assert "logcfg" not in text


def test_debugging(guest_of: GuestOf) -> None:
    """R-TASK-CI-3, R-TASK-CI-6: logs to a file of their own, scripts kept to be looked at."""
    guest = seeded(guest_of, cloud_init_debug=True)
    document = load(guest, f"{FRAGMENTS}/98_snf-image-35InitializeDatasource.cfg")
    assert isinstance(document, dict)
    parser = configparser.RawConfigParser()
    parser.read_string(document["logcfg"])
    assert parser["logger_root"]["level"] == parser["logger_cloudinit"]["level"] == "DEBUG"
    assert "/var/log/snf-image/cloud-init-debug.log" in parser["handler_file"]["args"]
    assert "sys.stderr" in parser["handler_stderr"]["args"]
    assert trees.exists(guest, "/var/log/snf-image")
    assert [trees.mode(guest, f"{PER_ONCE}/{name}") for name in guest.root.list(PER_ONCE)] == [0o600]


def test_the_logging_configuration_is_one(guest_of: GuestOf, tmp_path: Path) -> None:
    """R-TASK-CI-3: Python's own reader takes it, as cloud-init has it do."""
    guest = seeded(guest_of, cloud_init_debug=True)
    document = load(guest, f"{FRAGMENTS}/98_snf-image-35InitializeDatasource.cfg")
    assert isinstance(document, dict)
    log = tmp_path / "debug.log"
    text = document["logcfg"].replace("/var/log/snf-image/cloud-init-debug.log", str(log))
    kept = logging.getLogger().handlers[:], logging.getLogger().level
    try:
        logging.config.fileConfig(io.StringIO(text), disable_existing_loggers=False)
        logging.getLogger("cloudinit").debug("a line of cloud-init")
    finally:
        for handler in logging.getLogger().handlers:
            handler.close()
        logging.getLogger().handlers[:], logging.getLogger().level = kept
        logging.getLogger("cloudinit").setLevel(logging.NOTSET)
    assert "a line of cloud-init" in log.read_text()


@pytest.mark.parametrize("directory", ["/local/etc/cloud/cloud.cfg.d", "/usr/local/etc/cloud/cloud.cfg.d"])
def test_other_places_of_the_configuration(directory: str, guest_of: GuestOf) -> None:
    """R-TASK-CI-1."""
    guest = seeded(guest_of, {directory: Directory()})
    assert trees.exists(guest, f"{directory}/98_snf-image-35InitializeDatasource.cfg")


def test_no_cloud_init_is_an_error(guest_of: GuestOf) -> None:
    """R-TASK-CI-1."""
    with pytest.raises(RequestError, match="cloud-init not found in the image"):
        seeded(guest_of, {"/etc/cloud": Directory()})


def test_later_fragments_that_choose_a_data_source_are_a_warning(guest_of: GuestOf) -> None:
    """R-TASK-CI-3."""
    guest = seeded(
        guest_of,
        {
            **IMAGE,
            f"{FRAGMENTS}/99-installer.cfg": "# x\ndatasource_list: [ None ]\n",
            f"{FRAGMENTS}/99-other.cfg": "preserve_hostname: true\n",
            f"{FRAGMENTS}/90_dpkg.cfg": "datasource_list: [ Ec2 ]\n",
            f"{FRAGMENTS}/99-fifo.cfg": Fifo(),
        },
    )
    assert [warning for warning in trees.warnings(guest) if "99-installer" in warning] == trees.warnings(
        guest
    )


def test_a_switched_off_cloud_init_is_switched_on(guest_of: GuestOf) -> None:
    """R-TASK-CI-5."""
    guest = seeded(guest_of, {**IMAGE, "/etc/cloud/cloud-init.disabled": ""})
    assert not trees.exists(guest, "/etc/cloud/cloud-init.disabled")
    assert "cloud-init.disabled" in trees.warnings(guest)[0]


# -- removal of credentials ------------------------------------------------------------------------


def test_user_data_is_emptied_after_its_use(guest_of: GuestOf) -> None:
    """R-TASK-CI-6: the script empties the file, which cloud-init needs to find, and removes itself."""
    guest = seeded(guest_of)
    (name,) = guest.root.list(PER_ONCE)
    assert trees.mode(guest, f"{PER_ONCE}/{name}") == 0o700
    _run_at_first_boot(guest, name)
    assert trees.content(guest, f"{SEED}/user-data") == b""
    assert guest.root.list(PER_ONCE) == []


def test_fragments_with_credentials_go_others_stay(guest_of: GuestOf) -> None:
    """R-TASK-CI-2, R-TASK-CI-6, T-135."""
    guest = seeded(guest_of, initialize_datasource=datasource(None))
    cloud_init.write_config(guest, TaskName.CHANGE_PASSWORD, {"chpasswd": {"expire": False}}, secret=True)
    cloud_init.write_config(guest, TaskName.ADD_SWAP, {"swap": {"size": 1}})
    secret = f"{FRAGMENTS}/98_snf-image-50ChangePassword.cfg"
    plain = f"{FRAGMENTS}/98_snf-image-50AddSwap.cfg"
    assert [trees.mode(guest, path) for path in (secret, plain)] == [0o600, 0o644]
    for name in guest.root.list(PER_ONCE):
        _run_at_first_boot(guest, name)
    assert not trees.exists(guest, secret)
    assert trees.exists(guest, plain)


def _run_at_first_boot(guest: Guest, name: str) -> None:
    """Run one of our scripts with the tree's paths instead of the guest's."""
    path = Path(f"{guest.target}{PER_ONCE}/{name}")
    text = path.read_text()
    for directory in ("/etc", "/var"):
        text = text.replace(f" {directory}/", f" {guest.target}{directory}/")
    path.write_text(text)
    run(["/bin/sh", str(path)], timeout=20)


def test_a_fragment_with_credentials_replaces_an_open_one(guest_of: GuestOf) -> None:
    """T-135: the mode of a file that the image had does not hold."""
    path = f"{FRAGMENTS}/98_snf-image-50ChangePassword.cfg"
    guest = guest_of({**IMAGE, path: File("old", mode=0o666)}, cloud_init=True)
    cloud_init.write_config(guest, TaskName.CHANGE_PASSWORD, {"a": 1}, secret=True)
    assert trees.mode(guest, path) == 0o600


# -- meta-data -------------------------------------------------------------------------------------


def test_meta_data_is_added_to(guest_of: GuestOf) -> None:
    """R-TASK-CI-2, T-91, R-TASK-HOST-2, R-NET-14."""
    keys = [
        "ssh-ed25519 AAAA me: # no comment",
        "ssh-rsa BBBB 'quoted' \"twice\" \\n",
        "x\ty",
        "yes",
        "é: 漢字",
    ]
    guest = seeded(guest_of)
    cloud_init.set_meta_data(guest, local_hostname="web1.example.org")
    cloud_init.set_meta_data(guest, public_keys=keys)
    cloud_init.set_meta_data(guest, local_hostname="web2")
    assert load(guest, f"{SEED}/meta-data") == {
        "instance-id": "web1-4fd2",
        "local-hostname": "web2",
        "public-keys": keys,
    }
    assert trees.mode(guest, f"{SEED}/meta-data") == 0o600
    assert trees.text(guest, f"{SEED}/meta-data").startswith("# Made by snf-image\n")


@pytest.mark.parametrize(
    "data",
    ["- a list\n", "a: [", b"\x00\x01", "&a [*a]", "1: 2\n", "[" * 5000, "a: " + "x" * 2_000_000],
    ids=["list", "broken", "binary", "cycle", "number", "deep", "large"],
)
def test_hostile_meta_data_is_an_error(data: str | bytes, guest_of: GuestOf) -> None:
    """R-TASK-6, R-TASK-10."""
    guest = guest_of({**IMAGE, f"{SEED}/meta-data": data}, cloud_init=True)
    with pytest.raises(ImageError, match="meta-data"):
        cloud_init.set_meta_data(guest, local_hostname="x")


TEXT = st.text(max_size=40)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(TEXT, children, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(TEXT, PLAIN, max_size=5))
def test_no_value_breaks_the_quoting(document: dict[str, object]) -> None:
    """R-TASK-CI-2, T-91: whatever goes in comes out, of YAML 1.1, and as bytes."""
    text = yaml_text.dump(document).encode("utf-8", "surrogatepass")
    assert yaml.safe_load(text) == document


@pytest.mark.parametrize("word", ["aa:00:00:12:34:56", "1e3", "0x10", "off", "~", "12:30", "null", "1_000"])
def test_words_that_readers_disagree_about_are_quoted(word: str) -> None:
    """R-TASK-CI-2: YAML 1.1 and 1.2 read them differently unless they stand in quotes."""
    assert yaml_text.dump({"x": word}) in (f'x: "{word}"\n', f"x: '{word}'\n")


# -- version ---------------------------------------------------------------------------------------

SITE = "/usr/lib/python3.9/site-packages"
VERSIONS = {
    "dpkg": (
        {"/var/lib/dpkg/status": "Package: cloud-init\nStatus: install ok installed\nVersion: {}\n"},
        "22.4.2-1",
    ),
    "python 3": ({f"{SITE}/cloudinit/version.py": '__VERSION__ = "{}"\n_X = 1\n'}, "23.1.1"),
    "python 2": (
        {
            "/usr/lib/python2.7/site-packages/cloudinit/version.py": (
                'from distutils import version as vr\n\n\ndef version():\n    return vr.StrictVersion("{}")\n'
            )
        },
        "0.7.5",
    ),
    "dist-info": ({f"{SITE}/cloud_init-{{}}.dist-info/METADATA": ""}, "24.1.3"),
    "egg-info": ({"/usr/lib/python3.6/site-packages/cloud_init-{}-py3.6.egg-info": ""}, "18.5"),
    "dist-packages": (
        {"/usr/lib/python3/dist-packages/cloudinit/version.py": "__VERSION__='{}'\n"},
        "20.4.1",
    ),
    "local": (
        {"/usr/local/lib/python3.11/site-packages/cloudinit/version.py": "__VERSION__ = '{}'\n"},
        "24.2",
    ),
}


@pytest.mark.parametrize("case", VERSIONS)
def test_the_version_is_read_and_never_asked(case: str, guest_of: GuestOf) -> None:
    """R-TASK-PW-7, R-TASK-7."""
    tree, text = VERSIONS[case]
    guest = guest_of({path.format(text): str(node).replace("{}", text) for path, node in tree.items()})
    assert cloud_init.version(guest) == tuple(int(part) for part in text.partition("-")[0].split("."))


def test_a_removed_package_has_no_version(guest_of: GuestOf) -> None:
    """R-TASK-PW-7: nor has another package whose name begins alike."""
    status = (
        "Package: cloud-init\nStatus: deinstall ok config-files\nVersion: 22.4.2\n\n"
        "Package: cloud-init-extra\nStatus: install ok installed\nVersion: 9.9\n"
    )
    assert cloud_init.version(guest_of({"/var/lib/dpkg/status": status})) is None


def test_an_epoch_is_no_version(guest_of: GuestOf) -> None:
    """R-TASK-PW-7."""
    status = "Package: cloud-init\nStatus: install ok installed\nVersion: 1:23.4~rc1-0\n"
    assert cloud_init.version(guest_of({"/var/lib/dpkg/status": status})) == (23, 4)


@pytest.mark.parametrize(
    "tree",
    [
        {},
        {"/var/lib/dpkg/status": Fifo()},
        {"/var/lib/dpkg/status": Link("/var/lib/dpkg/status")},
        {f"{SITE}/cloudinit/version.py": Directory()},
        {f"{SITE}/cloudinit/version.py": "__VERSION__ = __import__('os').system('x')\n"},
        {"/usr/lib/python3.9/site-packages": Link("/proc/self")},
        {"/var/lib/dpkg/status": "Package: cloud-init\nStatus: install ok installed\nVersion: x\n"},
    ],
)
def test_a_version_that_cannot_be_told_is_none(tree: Tree, guest_of: GuestOf) -> None:
    """R-TASK-PW-7, R-TASK-10."""
    assert cloud_init.version(guest_of(tree)) is None
