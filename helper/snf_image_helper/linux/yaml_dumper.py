"""How a document is written: PyYAML's serialiser, told to quote what could be read as something else."""

from __future__ import annotations

import re
from typing import Final

import yaml

_PLAIN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


class Dumper(yaml.SafeDumper):
    """Quotes what is no plain word, keeps blocks of text as blocks, knows no aliases."""

    def serialize(self, node: yaml.Node) -> None:
        if isinstance(node, yaml.MappingNode):
            node.flow_style = False  # the document itself: its keys begin lines
        super().serialize(node)

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - the interface of PyYAML
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002 - as above
        super().increase_indent(flow, indentless=False)


def _represent_text(dumper: Dumper, text: str) -> yaml.ScalarNode:
    if _PLAIN.fullmatch(text):
        style = None
    elif text.endswith("\n") and text.isascii():
        style = "|"
    else:
        style = '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


Dumper.add_representer(str, _represent_text)
