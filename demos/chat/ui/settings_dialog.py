"""The settings, page by page. Nothing changes before Save; what is out of range is said and stays open."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from PySide6.QtCore import QSize
from PySide6.QtWidgets import QDialog, QHBoxLayout, QListWidget, QPushButton, QStackedWidget, QVBoxLayout, QWidget

from demos.chat.ui import settings_pages as pages
from demos.chat.ui.look import label

if TYPE_CHECKING:
    from collections.abc import Callable

    from demos.chat.ui.form import Form
    from demos.chat.ui.look import Look
    from demos.chat.viewmodel.app import AppModel

_SIZE = QSize(760, 580)


class SettingsDialog(QDialog):
    def __init__(self, parent: QWidget, look: Look, app: AppModel) -> None:
        super().__init__(parent)
        self.setWindowTitle("Settings")
        self.resize(min(_SIZE.width(), parent.width() - 40), min(_SIZE.height(), parent.height() - 30))
        self._app = app
        self._pages: dict[str, Callable[[], Form]] = {
            "Device": lambda: pages.device_page(look, app),
            "Cloud": lambda: pages.cloud_page(look, app),
            "Answers": lambda: pages.answers_page(app.settings),
            "Split": lambda: pages.split_page(app.settings),
            "Appearance": lambda: pages.looks_page(app.settings),
            "Keyboard": pages.keyboard_page,
        }
        #: Those that were looked at: all at once take longer than a click should.
        self._made: dict[int, Form] = {}
        self._list = QListWidget()
        self._list.setObjectName("pages")
        self._list.setAccessibleName("Pages of settings")
        self._list.addItems(list(self._pages))
        for row in range(self._list.count()):
            width = self.fontMetrics().horizontalAdvance(self._list.item(row).text())
            self._list.item(row).setSizeHint(QSize(width, self.fontMetrics().lineSpacing() + 20))
        self._stack = QStackedWidget()
        self._list.currentRowChanged.connect(self._turn_to)
        look.dress(self)
        self._list.ensurePolished()
        self._list.setFixedWidth(max(158, self._list.sizeHintForColumn(0) + 44))
        self._list.setCurrentRow(0)
        self._problem = label("", wrap=True)
        self._problem.setStyleSheet(f"color: {look.colours.bad}")
        self._problem.hide()
        save = QPushButton("Save")
        save.setProperty("role", "primary")
        save.setDefault(True)
        save.clicked.connect(self._save)
        cancel = QPushButton("Cancel")
        cancel.clicked.connect(self.reject)
        buttons = QHBoxLayout()
        buttons.setContentsMargins(24, 4, 18, 16)
        buttons.addWidget(self._problem, 1)
        buttons.addStretch()
        buttons.addWidget(cancel)
        buttons.addWidget(save)
        right = QVBoxLayout()
        right.setSpacing(4)
        right.addWidget(self._stack, 1)
        right.addLayout(buttons)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addWidget(self._list)
        layout.addLayout(right, 1)

    def show_page(self, index: int) -> None:
        self._list.setCurrentRow(index)

    def _turn_to(self, number: int) -> None:
        if number not in self._made:
            self._made[number] = list(self._pages.values())[number]()
            self._stack.addWidget(self._made[number])
        self._stack.setCurrentWidget(self._made[number])

    def _save(self) -> None:
        chosen = {name: value for form in self._made.values() for name, value in form.values().items()}
        try:
            self._app.apply(dataclasses.replace(self._app.settings, **chosen))
        except Exception as error:
            self._problem.setText(str(error))
            self._problem.show()
            return
        self.accept()
