"""Colours of patterns, errors and objects in reports, predictions and pictures of synthetic specimens."""

PATTERNS = ("#77AAFF", "#EEDD22", "#BB5533", "#118888", "#FF9999", "#8855CC", "#99AA00", "#22EEEE")
"""One colour per pattern, in class order, for overlays on grey images.

The colours are the result of a search that maximised the smallest OKLab distance between any two of them under normal
vision and simulated protanopia, deuteranopia and tritanopia (Machado et al. 2009, severity 1).
`tests/report/test_report.py` checks this distance, including the colours of errors.
"""

FALSE_POSITIVE = "#991111"
FALSE_NEGATIVE = "#7700AA"
WRONG_PATTERN = "#225566"
ERRORS = (FALSE_POSITIVE, FALSE_NEGATIVE, WRONG_PATTERN)
"""As distant from the colours of the patterns as these are from each other; dark, for a light background."""

OBJECTS = {"cell": "#3CAAC8", "mitotic_cell": "#FAC85A", "artefact": "#F05A5A"}
"""Colours of the outlines of annotated objects in pictures of synthetic specimens, for all patterns."""

_SHADES = ((0, 0.0), (0, 0.4), (255, 0.5), (0, 0.65))
"""Grey level to mix in, and its share, for each pass through `PATTERNS`."""
NUM_DISTINCT = len(_SHADES) * len(PATTERNS)
"""Number of patterns with colours of their own; then the colours begin anew."""


def pattern_colour(index: int) -> str:
    """Hexadecimal colour of the pattern with this class index.

    Readers with a common colour-vision deficiency can distinguish the first eight colours. Further patterns get darker
    and lighter shades of the same hues; `NUM_DISTINCT` colours are distinct.
    """
    grey, share = _SHADES[index // len(PATTERNS) % len(_SHADES)]
    mixed = (round((1 - share) * value + share * grey) for value in rgb(PATTERNS[index % len(PATTERNS)]))
    return "#{:02X}{:02X}{:02X}".format(*mixed)


def rgb(colour: str) -> tuple[int, int, int]:
    """Convert `#RRGGBB` to three integers in 0..255: red, green, blue."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def bgr(colour: str) -> tuple[int, int, int]:
    """Convert `#RRGGBB` to blue, green, red, the order of OpenCV."""
    red, green, blue = rgb(colour)
    return blue, green, red
