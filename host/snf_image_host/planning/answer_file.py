"""The operator's default answer file for Windows (configuration variable UNATTEND)."""

from __future__ import annotations

import base64

from snf_image_contract.names import OsFamily
from snf_image_contract.secret import Secret
from snf_image_host.configuration.node_config import NodeConfig
from snf_image_host.parameters.problems import Problems


def default_answer_file(config: NodeConfig, family: OsFamily | None, problems: Problems) -> Secret | None:
    """Base64 of the file that UNATTEND names, None if it names none or the image is known to be no Windows.

    The helper reads it as XML or text; here it is bytes, of at most FETCH_MAX_PARAM_SIZE.
    """
    if config.unattend is None or (family is not None and not family.is_windows):
        return None
    problems.warn("UNATTEND is deprecated; use the parameter os_answer_file")
    try:
        with open(config.unattend, "rb") as file:
            data = file.read(config.fetch_max_param_size + 1)
    except OSError as error:
        problems.error(f"UNATTEND: {config.unattend}: {error.strerror}")
        return None
    if len(data) > config.fetch_max_param_size:
        problems.error(f"UNATTEND: {config.unattend}: larger than {config.fetch_max_param_size} bytes")
        return None
    return Secret(base64.b64encode(data).decode("ascii"))
