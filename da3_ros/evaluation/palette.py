"""Colours of the report: Okabe-Ito for lines (told apart by colour-blind readers), viridis and cividis for maps."""

from __future__ import annotations

# A drawing uses these as plain colours; the page replaces them by CSS variables, so they follow light and dark.
INK = "#010203"
MUTED = "#040506"
GRID = "#070809"
FINAL = "#0072b2"
CAUSAL = "#e69f00"
BREAK = "#d55e00"
REPAIRED = "#cc79a7"
GOOD = "#009e73"

CSS_NAMES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--grid)",
    FINAL: "var(--final)",
    CAUSAL: "var(--causal)",
    BREAK: "var(--break)",
    REPAIRED: "var(--repaired)",
    GOOD: "var(--good)",
}
