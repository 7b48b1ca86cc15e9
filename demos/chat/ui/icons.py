"""Line icons, drawn here so that they follow theme and scaling."""

from __future__ import annotations

from functools import lru_cache

from PySide6.QtCore import QByteArray, QRectF, Qt
from PySide6.QtGui import QIcon, QPainter, QPixmap
from PySide6.QtSvg import QSvgRenderer

#: On a grid of 24, strokes of 1.8.
_PATHS = {
    "plus": "M12 5v14M5 12h14",
    "send": "M12 19V6M6.5 11.5 12 6l5.5 5.5",
    "stop": "M7 7h10v10H7z",
    "copy": "M9 9h10v10H9zM5 15V5h10",
    "check": "M5 12.5 10 17.5 19 7",
    "again": "M19 12a7 7 0 1 1-2.2-5.1M19 4v4h-4",
    "edit": "M5 19l1-4L16 5l3 3L9 18zM14 7l3 3",
    "branch": "M7 5v14M7 12c6 0 10-1 10-6M14.5 8 17 5.5 19.5 8",
    "search": "M10.5 4.500a6 6 0 1 0 0 12 6 6 0 0 0 0-12M15 15l4.5 4.5",
    "pin": "M9 4h6l-1 6 3 3H7l3-3zM12 13v7",
    "trash": "M5 7h14M9 7V5h6v2M7 7l1 12h8l1-12",
    "settings": "M4 7h10M18 7h2M4 17h2M10 17h10M16 5v4M8 15v4",
    "sidebar": "M4 5h16v14H4zM9.5 5v14",
    "columns": "M4 5h16v14H4zM9.3 5v14M14.7 5v14",
    "chart": "M4 19h16M6 16l4-5 3 2 5-7",
    "left": "M14 6l-6 6 6 6",
    "right": "M10 6l6 6-6 6",
    "down": "M6 9.500l6 6 6-6",
    "up": "M6 14.500l6-6 6 6",
    "close": "M6.5 6.500l11 11M17.5 6.500l-11 11",
    "file": "M7 3.500h7l4 4V20.500H7zM14 3.500v4h4",
    "more": "M5.6 12h.8M11.6 12h.8M17.6 12h.8M5.6 12.4h.8M11.6 12.4h.8M17.6 12.4h.8",
    "plug": "M9 4v5M15 4v5M7 9h10v3a5 5 0 0 1-10 0zM12 17v4",
    "note": "M12 4a8 8 0 1 0 0 16 8 8 0 0 0 0-16M12 11v5M12 8h.01",
    "warning": "M12 4l9 16H3zM12 10v5M12 17.500h.01",
    "clip": "M18.5 11.5 12 18a4 4 0 0 1-5.7-5.700l7-7a2.7 2.7 0 0 1 3.9 3.900l-7 7a1.3 1.3 0 0 1-1.9-1.9l6-6",
    "pause": "M9 6v12M15 6v12",
    "play": "M8 5.500v13l10-6.500z",
    "export": "M12 15V4M7.5 8.5 12 4l4.5 4.500M5 15v5h14v-5",
    "import": "M12 4v11M7.5 10.5 12 15l4.5-4.500M5 15v5h14v-5",
}


@lru_cache(maxsize=256)
def icon(name: str, colour: str) -> QIcon:
    """For any size and scaling."""
    found = QIcon()
    for size in (16, 20, 24, 32, 48, 64):
        found.addPixmap(_pixmap(name, colour, size))
    return found


def _pixmap(name: str, colour: str, size: int) -> QPixmap:
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24" fill="none" stroke="{colour}" '
        f'stroke-width="1.8" stroke-linecap="round" stroke-linejoin="round"><path d="{_PATHS[name]}"/></svg>'
    )
    pixmap = QPixmap(size, size)
    pixmap.fill(Qt.GlobalColor.transparent)
    painter = QPainter(pixmap)
    QSvgRenderer(QByteArray(svg.encode())).render(painter, QRectF(0, 0, size, size))
    painter.end()
    return pixmap
