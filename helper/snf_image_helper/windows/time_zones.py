"""The names of Windows's time zones, and their indexes in sysprep.inf (R-TASK-UNA-12).

Facts: Microsoft's list of time zone indexes for the key TimeZone of sysprep.inf, and the keys below
``HKLM\\SOFTWARE\\Microsoft\\Windows NT\\CurrentVersion\\Time Zones``.
"""

from __future__ import annotations

import re
from typing import Final

from snf_image_helper.errors import RequestError

_ENDING: Final = " Standard Time"
_PLAUSIBLE: Final = re.compile(r"[A-Za-z0-9 .+()'-]{3,64}")
_TABLE: Final = """
000 Dateline; 001 Samoa; 002 Hawaiian; 003 Alaskan; 004 Pacific; 010 Mountain; 013 Mexico Standard Time 2
015 US Mountain|U.S. Mountain; 020 Central; 025 Canada Central; 030 Mexico; 033 Central America; 035 Eastern
040 US Eastern|U.S. Eastern; 045 SA Pacific|S.A. Pacific; 050 Atlantic; 055 SA Western|S.A. Western
056 Pacific SA|Pacific S.A.; 060 Newfoundland|Newfoundland and Labrador; 065 E. South America
070 SA Eastern|S.A. Eastern; 073 Greenland; 075 Mid-Atlantic; 080 Azores; 083 Cape Verde; 085 GMT
090 Greenwich; 095 Central Europe; 100 Central European; 105 Romance; 110 W. Europe; 113 W. Central Africa
115 E. Europe; 120 Egypt; 125 FLE; 130 GTB; 135 Israel; 140 South Africa; 145 Russian; 150 Arab; 155 E. Africa
158 Arabic; 160 Iran; 165 Arabian; 170 Caucasus; 175 Afghanistan|Transitional Islamic State of Afghanistan
180 Ekaterinburg; 185 West Asia; 190 India; 193 Nepal; 195 Central Asia; 200 Sri Lanka; 201 N. Central Asia
203 Myanmar; 205 SE Asia|S.E. Asia; 207 North Asia; 210 China; 215 Singapore; 220 Taipei; 225 W. Australia
227 North Asia East; 230 Korea; 235 Tokyo; 240 Yakutsk; 245 AUS Central|A.U.S. Central; 250 Cen. Australia
255 AUS Eastern|A.U.S. Eastern; 260 E. Australia; 265 Tasmania; 270 Vladivostok; 275 West Pacific
280 Central Pacific; 285 Fiji|Fiji Islands; 290 New Zealand; 300 Tonga
"""


def _full(name: str) -> str:
    return name if "Standard Time" in name else name + _ENDING


def _entries() -> dict[str, tuple[int, str]]:
    """Every spelling in lower case, to index and registry name."""
    found = {}
    for entry in re.split(r"[;\n]", _TABLE.strip()):
        number, _, names = entry.strip().partition(" ")
        spellings = names.split("|")
        for spelling in spellings:
            found[_full(spelling).lower()] = (int(number), _full(spellings[0]))
    return found


_ZONES: Final = _entries()


def registry_name(asked: str) -> str:
    """The name by which the registry of Windows knows a time zone (T-111).

    One that is not in the table may be of a later Windows; :class:`RequestError` if it cannot be a name.
    """
    known = _ZONES.get(asked.strip().lower())
    if known is not None:
        return known[1]
    if not _PLAUSIBLE.fullmatch(asked):
        raise RequestError("WINDOWS_TIMEZONE: not the name of a time zone of Windows")
    return asked


def index(asked: str) -> str:
    """The three digits of a time zone in sysprep.inf; :class:`RequestError` if it has none."""
    known = _ZONES.get(asked.strip().lower())
    if known is None:
        raise RequestError(f"WINDOWS_TIMEZONE: {asked[:64]!r} has no index, which sysprep.inf needs")
    return f"{known[0]:03d}"
