"""Above the conversation: its title, how the two sides are, and the way to everything else."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from PySide6.QtCore import QSize
from PySide6.QtWidgets import QFrame, QHBoxLayout, QSizePolicy, QToolButton

from demos.chat.ui.elided import Elided
from demos.chat.ui.icons import icon
from demos.chat.ui.look import label, tool
from demos.chat.ui.side_chip import SideChip

if TYPE_CHECKING:
    from collections.abc import Callable

    from demos.chat.ui.look import Look
    from demos.chat.viewmodel.app import AppModel


class Header(QFrame):
    def __init__(
        self, look: Look, app: AppModel, toggle_sidebar: Callable[[], None], open_settings: Callable[[], None]
    ) -> None:
        super().__init__()
        self.setObjectName("header")
        self.setFixedHeight(52)
        self._look = look
        self._app = app
        self._title = Elided()
        self._title.setObjectName("title")
        self._title.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self._emulated = label("emulated", "pill")
        self._emulated.setObjectName("emulated")
        self._emulated.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        again = app.sides.open_again
        self._device = SideChip(look, "Device", "device", partial(app.sides.stop_loading, "device"), again)
        self._cloud = SideChip(look, "Cloud", "cloud", partial(app.sides.stop_loading, "cloud"), again)
        self._plug = tool(look, "plug", "Unplug the network", app.sides.toggle_plug, "Ctrl+U")
        self._plug.setCheckable(True)
        row = QHBoxLayout(self)
        row.setContentsMargins(10, 0, 12, 0)
        row.setSpacing(6)
        row.addWidget(tool(look, "sidebar", "Show or hide the conversations", toggle_sidebar, "Ctrl+B"))
        row.addWidget(self._title, 1)
        row.addWidget(self._emulated)
        row.addWidget(self._device)
        row.addWidget(self._cloud)
        row.addWidget(self._plug)
        row.addWidget(tool(look, "settings", "Settings", open_settings, "Ctrl+,"))
        for button in self.findChildren(QToolButton):
            if button.parent() is self:
                button.setIconSize(QSize(20, 20))
        app.sides.changed.subscribe(lambda _: self.refresh())
        app.shown.subscribe(lambda _: self.refresh())
        look.follow(self, self.refresh)

    def refresh(self) -> None:
        sides = self._app.sides
        self._title.setText(self._app.current.title)
        self._device.show_state(sides.device)
        self._cloud.show_state(sides.cloud, broken=sides.unplugged)
        self._emulated.setVisible(sides.emulated)
        self._emulated.setText("emulated" if sides.slower is None else "emulated, but slower")
        told = "Hardware or network are emulated from published figures: tokens are real, times are theirs."
        if sides.slower is not None:
            told += f" This machine does not keep up: {sides.slower}; those times are its own."
        self._emulated.setToolTip(told)
        self._emulated.setAccessibleDescription(told)
        self._plug.setVisible(sides.can_unplug)
        self._plug.setChecked(sides.unplugged)
        name = "Plug the network in again" if sides.unplugged else "Unplug the network"
        self._plug.setAccessibleName(name)
        self._plug.setToolTip(f"{name} (Ctrl+U): the answer goes on without the cloud")
        colour = self._look.colours.bad if sides.unplugged else self._look.colours.muted
        self._plug.setIcon(icon("plug", colour))
