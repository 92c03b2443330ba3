"""The environment of custom, overwriting and operators' tasks, as far as the host knows it.

The helper adds what it alone knows: devices, TARGET, RESIZE_PART, the paths of its answer files.
"""

from __future__ import annotations

from typing import Final

from snf_image_contract.job import Variable
from snf_image_contract.secret import Secret
from snf_image_host.configuration.node_config import NodeConfig
from snf_image_host.parameters.checks import Parameters
from snf_image_host.planning.network import nic_variables
from snf_image_host.planning.request import Request

_PARAMETERS: Final = {
    "img_format": ("TYPE",),
    # SNF_IMAGE_PASSWORD is the name that programs written for Debian know (D-34).
    "img_passwd": ("PASSWD", "PASSWORD"),
    "img_passwd_hash": ("PASSWD_HASH",),
    "img_properties": ("PROPERTIES",),
    "inst_properties": ("INST_PROPERTIES",),
    "img_personality": ("PERSONALITY",),
    "auth_keys": ("AUTH_KEYS",),
    "os_product_key": ("OS_PRODUCT_KEY",),
    "cloud_userdata": ("CLOUD_USERDATA",),
}


def task_environment(
    request: Request, parameters: Parameters, config: NodeConfig, *, hostname: str
) -> tuple[Variable, ...]:
    """Variables by name, without the prefix SNF_IMAGE_; what is not set is absent."""
    variables: dict[str, str] = {
        "HOSTNAME": hostname,
        "DHCP_TAGS": " ".join(config.dhcp_tags),
        "STATEFUL_DHCPV6_TAGS": " ".join(config.stateful_dhcpv6_tags),
        "STATELESS_DHCPV6_TAGS": " ".join(config.stateless_dhcpv6_tags),
        "DEFAULT_NIC_CONFIG": config.default_nic_config,
        **nic_variables(request.nics or ()),
    }
    if config.cloud_init_debug:
        variables["CLOUD_INIT_DEBUG"] = "yes"
    for parameter, names in _PARAMETERS.items():
        if parameter in parameters.given:
            variables |= dict.fromkeys(names, parameters.given[parameter].reveal())
    variables |= {f"PROPERTY_{name}": value for name, value in parameters.properties.merged}
    return tuple(Variable(name=name, value=Secret(value)) for name, value in sorted(variables.items()))
