"""How a document of the image is read: PyYAML's safe loader, without what makes gigabytes of a few lines."""

from __future__ import annotations

from typing import Final

import yaml

_MERGE: Final = "tag:yaml.org,2002:merge"


class Loader(yaml.SafeLoader):
    """Refuses merge keys (``<<``), each level of which may multiply the pairs of the level before.

    Aliases stay: they are one object each, however often they are named.
    """

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        if any(key.tag == _MERGE for key, _ in node.value):
            raise yaml.constructor.ConstructorError(None, None, "a merge key", node.start_mark)
        super().flatten_mapping(node)
