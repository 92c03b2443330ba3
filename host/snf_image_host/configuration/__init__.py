"""The operator's configuration: files of assignments, parsed and never executed."""

from snf_image_host.configuration.files import ConfigFile, main_files
from snf_image_host.configuration.node_config import NodeConfig, load_config

__all__ = ["ConfigFile", "NodeConfig", "load_config", "main_files"]
