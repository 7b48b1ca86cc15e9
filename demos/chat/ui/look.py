"""What every widget needs to draw itself: colours and settings now, and word when they change."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

from PySide6.QtCore import QTimer
from PySide6.QtWidgets import QLabel, QToolButton, QWidget

from demos.chat.emitter import Emitter
from demos.chat.ui.icons import icon
from demos.chat.ui.theme import colours_of, style_sheet

if TYPE_CHECKING:
    from collections.abc import Callable

    from demos.chat.ui.theme import Colours
    from demos.chat.viewmodel.settings import Settings


#: Milliseconds that a change of looks may take of one turn of the event loop, but for the last part begun in it.
_TURN_MS = 8


class Look:
    """A change is drawn part by part, in as many turns of the event loop as it takes: dressing everything at once is
    the slowest thing that this program could do, and keys wait meanwhile."""

    def __init__(self, settings: Settings) -> None:
        #: A change begins (True), and is drawn (False).
        self.changing: Emitter[bool] = Emitter()
        self.settings = settings
        self._sheet = ""
        self._followers: list[Callable[[], None]] = []
        self._due: deque[Callable[[], None]] = deque()
        self._timer = QTimer()
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._go_on)

    @property
    def colours(self) -> Colours:
        return colours_of(self.settings.theme)

    @property
    def sheet(self) -> str:
        """The style sheet."""
        if not self._sheet:
            self._sheet = style_sheet(self.colours, self.settings)
        return self._sheet

    def change(self, settings: Settings) -> None:
        """Soon; `changing` tells when."""
        self.settings, self._sheet = settings, ""
        # From the beginning, where a change was under way.
        self._due = deque(self._followers)
        self.changing.emit(True)
        self._timer.start()

    def follow(self, widget: QWidget, draw: Callable[[], None]) -> None:
        """Call `draw` now, and on each change until `widget` is gone."""
        draw()
        self._followers.append(draw)
        widget.destroyed.connect(lambda *_: self._forget(draw))

    def dress(self, widget: QWidget) -> None:
        """It and what is in it wear the style sheet. Each part of the window by itself, and not the window or the
        application, for which Qt takes several times as long."""

        def draw() -> None:
            font = widget.font()
            if font.pointSize() != self.settings.font_size:
                # The application's font does not reach what wears a sheet of its own.
                font.setPointSize(self.settings.font_size)
                widget.setFont(font)
            if widget.styleSheet() != self.sheet:
                widget.setStyleSheet(self.sheet)

        self.follow(widget, draw)

    def _forget(self, draw: Callable[[], None]) -> None:
        for calls in (self._followers, self._due):
            if draw in calls:
                calls.remove(draw)

    def _go_on(self) -> None:
        end = time.perf_counter() + _TURN_MS / 1000
        while self._due and time.perf_counter() < end:
            self._due.popleft()()
        if self._due:
            self._timer.start()
        else:
            self.changing.emit(False)


def tool(look: Look, name: str, label: str, clicked: Callable[[], None], shortcut: str = "") -> QToolButton:
    """A button with an icon; `label` is its tooltip and what a screen reader says."""
    button = QToolButton()
    button.setAccessibleName(label)
    button.setToolTip(f"{label} ({shortcut})" if shortcut else label)
    button.clicked.connect(lambda *_: clicked())
    look.follow(button, lambda: button.setIcon(icon(name, look.colours.muted)))
    return button


def label(text: str = "", role: str = "", *, wrap: bool = False) -> QLabel:
    made = QLabel(text)
    if role:
        made.setProperty("role", role)
    made.setWordWrap(wrap)
    return made


def restyle(widget: QWidget) -> None:
    """After a property changed that the style sheet looks at."""
    widget.style().unpolish(widget)
    widget.style().polish(widget)
