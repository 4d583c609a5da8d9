"""Colours that stay apart for readers with any of the common colour-vision deficiencies."""

PATTERNS = ("#77AAFF", "#EEDD22", "#BB5533", "#118888", "#FF9999", "#8855CC", "#99AA00", "#22EEEE")
"""One per pattern, in class order, made for overlays on grey images.

Found by a search that maximised the smallest OKLab distance between any two under normal vision and simulated
protanopia, deuteranopia and tritanopia (Machado et al. 2009, severity 1); `tests/test_report.py` holds the bound.
"""

FALSE_POSITIVE = "#FF7A1A"
FALSE_NEGATIVE = "#4DA3FF"
WRONG_PATTERN = "#F5EE52"


def pattern_colour(index: int) -> str:
    """Hexadecimal colour of the pattern with this class index; the colours repeat after eight."""
    return PATTERNS[index % len(PATTERNS)]


def rgb(colour: str) -> tuple[int, int, int]:
    """`#RRGGBB` as three integers in 0..255."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
