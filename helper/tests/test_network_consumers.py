"""The programs that read what back-ends write: offline, on files of ours, where they are installed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from network_images import CASES, IMAGES
from snf_image_helper.guest import Guest
from snf_image_helper.linux.network import configure_network
from snf_image_helper.linux.network.installed import NETPLAN_GENERATORS
from snf_image_process import run
from trees import GuestOf

SOME = [case for case in CASES if case != "none"]


def configured(guest_of: GuestOf, backend: str, case: str) -> Guest:
    guest = guest_of(IMAGES[backend].tree, configure_network=CASES[case])
    configure_network(guest)
    return guest


@pytest.mark.requires("netplan")
@pytest.mark.parametrize("case", SOME)
def test_netplan_makes_networkd_files_of_ours(case: str, guest_of: GuestOf) -> None:
    """R-NET-NP-1, R-NET-NP-2, R-NET-5."""
    guest = configured(guest_of, "netplan", case)
    generator = next(path for path in NETPLAN_GENERATORS if os.path.exists(path))
    done = run([generator, "--root-dir", guest.target], timeout=60)
    assert done.stderr == b""
    files = list(Path(guest.target, "run/systemd/network").glob("*.network"))
    assert len(files) == len(CASES[case].nics)
    text = "".join(path.read_text() for path in files)
    for nic in CASES[case].nics:
        assert f"MACAddress={nic.mac}\n" in text
        assert nic.address is None or f"Address={nic.address}\n" in text
        assert nic.gateway is None or f"Gateway={nic.gateway}\n" in text
        assert not nic.gateway_on_link or "GatewayOnLink=true\n" in text


@pytest.mark.requires("ifupdown")
@pytest.mark.parametrize("case", SOME)
def test_ifup_understands_ours(case: str, guest_of: GuestOf) -> None:
    """R-NET-IFUP-1, R-NET-IFUP-2, R-NET-5."""
    guest = configured(guest_of, "ifupdown", case)
    done = run(
        ["ifup", "--no-act", "--force", "-a", "-i", f"{guest.target}/etc/network/interfaces",
         "--state-dir", guest.target],
        timeout=60,
    )  # fmt: skip
    text = done.text + done.stderr.decode()
    for nic in CASES[case].nics:
        if nic.address is not None:
            assert f"ip addr add {nic.address.partition('/')[0]}/" in text
        assert nic.gateway is None or f"default via {nic.gateway}" in text


@pytest.mark.requires("nmcli")
@pytest.mark.parametrize("case", SOME)
def test_networkmanager_understands_ours(case: str, guest_of: GuestOf) -> None:
    """R-NET-NM-1, R-NET-5, R-NET-6."""
    guest = configured(guest_of, "nm", case)
    for index, nic in enumerate(CASES[case].nics):
        path = f"{guest.target}/etc/NetworkManager/system-connections/snf-nic{index}.nmconnection"
        with open(path, "rb") as stream:
            data = stream.read()
        done = run(
            ["nmcli", "--offline", "connection", "modify", "connection.zone", "x"], stdin=data, timeout=60
        )
        kept = set(data.decode().splitlines()) - {"# Made by snf-image", "autoconnect=true", ""}
        assert kept <= set(done.text.splitlines())
        assert f"mac-address={nic.mac.upper()}" in done.text
