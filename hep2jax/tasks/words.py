"""Figures in words."""

from typing import Any


def figure(figures: dict[str, Any], name: str) -> str:
    """A figure with its 95 % interval where it has one: `0.912 [0.880, 0.937]`."""
    value, interval = figures[name], figures.get(f"{name}_ci95")
    if value is None:
        return "undefined"
    return f"{value:.3f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")
