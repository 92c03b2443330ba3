"""INI files of systemd and NetworkManager, read as far as telling what they apply to needs."""

from __future__ import annotations

Sections = dict[str, dict[str, str]]


def parse(data: bytes) -> Sections:
    """Sections with their keys; the first value of a key wins, whatever is no assignment is passed over."""
    sections: Sections = {}
    current: dict[str, str] = {}
    for raw in data.decode("utf-8", "replace").splitlines():
        line = raw.strip()
        if line.startswith("[") and line.endswith("]"):
            current = sections.setdefault(line[1:-1], {})
        elif "=" in line and not line.startswith(("#", ";")):
            key, _, value = line.partition("=")
            current.setdefault(key.strip(), value.strip())
    return sections
