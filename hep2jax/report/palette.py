"""The colours of patterns, errors and objects in every picture: reports, predictions, synthetic specimens."""

PATTERNS = ("#77AAFF", "#EEDD22", "#BB5533", "#118888", "#FF9999", "#8855CC", "#99AA00", "#22EEEE")
"""One per pattern, in class order, made for overlays on grey images.

Found by a search that maximised the smallest OKLab distance between any two under normal vision and simulated
protanopia, deuteranopia and tritanopia (Machado et al. 2009, severity 1); `tests/report/test_report.py` holds the
bound, for the colours of errors too.
"""

FALSE_POSITIVE = "#991111"
FALSE_NEGATIVE = "#7700AA"
WRONG_PATTERN = "#225566"
ERRORS = (FALSE_POSITIVE, FALSE_NEGATIVE, WRONG_PATTERN)
"""As far from the patterns as these are from each other: dark, for a light ground."""

OBJECTS = {"cell": "#3CAAC8", "mitotic_cell": "#FAC85A", "artefact": "#F05A5A"}
"""Outlines of the true objects in pictures of synthetic specimens, whatever their pattern."""

_SHADES = ((0, 0.0), (0, 0.4), (255, 0.5), (0, 0.65))
"""Grey level, and its share in the colours, of each further round through `PATTERNS`."""


def pattern_colour(index: int) -> str:
    """Hexadecimal colour of the pattern with this class index.

    The first eight stay apart for readers with any of the common colour-vision deficiencies; sets of more patterns get
    darker and lighter ones of the same hues, all different up to 32.
    """
    grey, share = _SHADES[index // len(PATTERNS) % len(_SHADES)]
    mixed = (round((1 - share) * value + share * grey) for value in rgb(PATTERNS[index % len(PATTERNS)]))
    return "#{:02X}{:02X}{:02X}".format(*mixed)


def rgb(colour: str) -> tuple[int, int, int]:
    """`#RRGGBB` as three integers in 0..255."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def bgr(colour: str) -> tuple[int, int, int]:
    """The same in OpenCV's order."""
    red, green, blue = rgb(colour)
    return blue, green, red
