"""Who is told of a deployment's progress: people at a terminal, logs, programs."""

from snf_image_host.sinks.json_lines import JsonLines
from snf_image_host.sinks.lines import Lines
from snf_image_host.sinks.messages import public_names
from snf_image_host.sinks.monitor import MonitorLog, MonitorProgram
from snf_image_host.sinks.terminal import Terminal

__all__ = ["JsonLines", "Lines", "MonitorLog", "MonitorProgram", "Terminal", "public_names"]
