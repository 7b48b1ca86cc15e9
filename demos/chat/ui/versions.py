"""‹ 2 / 3 ›: the versions of a message."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtWidgets import QHBoxLayout, QWidget

from demos.chat.ui.look import label, tool

if TYPE_CHECKING:
    from collections.abc import Callable

    from demos.chat.ui.look import Look


class Versions(QWidget):
    """Hidden where there is only one."""

    def __init__(self, parent: QWidget, look: Look, place: tuple[int, int], turn: Callable[[int], None]) -> None:
        super().__init__(parent)
        which, count = place
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        before = tool(look, "left", "Previous version", lambda: turn(-1))
        after = tool(look, "right", "Next version", lambda: turn(1))
        before.setEnabled(which > 1)
        after.setEnabled(which < count)
        number = label(f"{which} / {count}", "muted")
        number.setAccessibleName(f"Version {which} of {count}")
        for widget in (before, number, after):
            layout.addWidget(widget)
        self.setVisible(count > 1)
