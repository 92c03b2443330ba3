"""The helper VM: qemu without privileges or network, its ports, its disks, its end."""

from snf_image_host.vm.accelerator import Choice, Verdict, check_kvm, choose_accelerator
from snf_image_host.vm.account import Account, account_for
from snf_image_host.vm.launcher import Limits, launcher
from snf_image_host.vm.machine import HelperVm, start_helper
from snf_image_host.vm.verdict import Outcome
from snf_image_host.vm.warm import make_state, make_state_later

__all__ = [
    "Account",
    "Choice",
    "HelperVm",
    "Limits",
    "Outcome",
    "Verdict",
    "account_for",
    "check_kvm",
    "choose_accelerator",
    "launcher",
    "make_state",
    "make_state_later",
    "start_helper",
]
