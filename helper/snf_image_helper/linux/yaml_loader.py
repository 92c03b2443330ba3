"""How a document of the image is read: PyYAML's safe loader, without what makes gigabytes of a few lines."""

from __future__ import annotations

from typing import Final

import yaml

_MERGE: Final = "tag:yaml.org,2002:merge"
_MAX_MERGED: Final = 10_000


class Loader(yaml.SafeLoader):
    """Bounds what merge keys (``<<``) bring: each level of them may multiply the pairs of the level before.

    Aliases need no bound: they are one object each, however often they are named.
    """

    _merged = 0

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        for key, value in node.value:
            if key.tag != _MERGE:
                continue
            for source in value.value if isinstance(value, yaml.SequenceNode) else (value,):
                if isinstance(source, yaml.MappingNode):
                    self.flatten_mapping(source)
                    self._merged += len(source.value)
                if self._merged > _MAX_MERGED:
                    raise yaml.constructor.ConstructorError(None, None, "too much is merged", node.start_mark)
        super().flatten_mapping(node)
