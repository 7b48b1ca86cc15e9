"""A page of settings: labelled fields, each with a hint, bound to a field of Settings by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from PySide6.QtCore import Qt
from PySide6.QtGui import QPalette
from PySide6.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFileDialog,
    QHBoxLayout,
    QLineEdit,
    QPlainTextEdit,
    QPushButton,
    QScrollArea,
    QSpinBox,
    QStyle,
    QStyleOptionComboBox,
    QStylePainter,
    QVBoxLayout,
    QWidget,
)

from demos.chat.ui.icons import icon
from demos.chat.ui.look import label

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from PySide6.QtGui import QPaintEvent, QWheelEvent

_AREA_HEIGHT = 96
_ARROW = 16
#: Of a number's text: style sheets do not reach it.
_MARGINS = (7, 0, 7, 0)


class Form(QScrollArea):
    """`values()` says what is chosen now."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self.setWidgetResizable(True)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setAccessibleName(title)
        page = QWidget()
        page.setObjectName("page")
        self._layout = QVBoxLayout(page)
        self._layout.setContentsMargins(24, 18, 24, 18)
        self._layout.setSpacing(4)
        self._layout.addWidget(label(title, "h2"))
        self._layout.addStretch()
        self.setWidget(page)
        self._values: dict[str, Callable[[], Any]] = {}
        self._parts: dict[str, list[QWidget]] = {}

    def values(self) -> dict[str, Any]:
        return {name: value() for name, value in self._values.items()}

    def add(self, widget: QWidget) -> None:
        self._layout.insertWidget(self._layout.count() - 1, widget)

    def field(self, name: str, title: str, widget: QWidget, value: Callable[[], Any], hint: str = "") -> None:
        heading = label(title)
        heading.setContentsMargins(0, 9, 0, 0)
        heading.setBuddy(widget)
        widget.setAccessibleName(widget.accessibleName() or title)
        widget.setAccessibleDescription(hint)
        self._parts[name] = [heading, *([label(hint, "muted", wrap=True)] if hint else []), widget]
        for part in self._parts[name]:
            self.add(part)
        self._values[name] = value

    def text(self, name: str, title: str, value: str, hint: str = "", *, secret: bool = False) -> QLineEdit:
        field = QLineEdit(value)
        if secret:
            field.setEchoMode(QLineEdit.EchoMode.PasswordEchoOnEdit)
        self.field(name, title, field, lambda: field.text().strip(), hint)
        return field

    def path(self, name: str, title: str, value: str, hint: str, files: str) -> None:
        field, row = QLineEdit(value), QWidget()
        field.setAccessibleName(title)
        browse = QPushButton("Choose …")
        browse.setAccessibleName(f"Choose a file: {title}")

        def choose() -> None:
            chosen, _ = QFileDialog.getOpenFileName(self, title, field.text(), files)
            field.setText(chosen or field.text())

        browse.clicked.connect(choose)
        layout = QHBoxLayout(row)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(field, 1)
        layout.addWidget(browse)
        self.field(name, title, row, lambda: field.text().strip(), hint)

    def area(self, name: str, title: str, value: str, hint: str = "") -> None:
        field = QPlainTextEdit(value)
        field.setProperty("role", "field")
        field.setFixedHeight(_AREA_HEIGHT)
        field.setTabChangesFocus(True)
        self.field(name, title, field, field.toPlainText, hint)

    def choice(self, name: str, title: str, value: Any, choices: Mapping[Any, str], hint: str = "") -> QComboBox:
        field = _Choice()
        # Long names must not make the page wider than the window.
        field.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        field.setMinimumContentsLength(12)
        keys = list(choices)
        field.addItems(list(choices.values()))
        field.setCurrentIndex(keys.index(value) if value in keys else 0)
        self.field(name, title, field, lambda: keys[field.currentIndex()], hint)
        return field

    def number(
        self, name: str, title: str, value: float, limits: tuple[float, float], step: float, hint: str = ""
    ) -> None:
        field = _Decimal()
        field.setDecimals(2)
        field.setRange(*limits)
        field.setSingleStep(step)
        field.setValue(value)
        self.field(name, title, field, field.value, hint)

    def count(
        self, name: str, title: str, value: int, limits: tuple[int, int], hint: str = "", suffix: str = ""
    ) -> None:
        field = _Whole()
        field.setRange(*limits)
        field.setSuffix(suffix)
        field.setValue(value)
        self.field(name, title, field, field.value, hint)

    def optional(
        self, name: str, title: str, value: float | None, otherwise: str, limits: tuple[float, float], step: float,
        hint: str = "", *, whole: bool = False,
    ) -> None:  # fmt: skip
        """A number, or nothing: the lowest position says `otherwise`."""
        field = _Decimal()
        field.setDecimals(0 if whole else 2)
        field.setRange(limits[0] - step, limits[1])
        field.setSingleStep(step)
        field.setSpecialValueText(otherwise)
        field.setValue(limits[0] - step if value is None else value)

        def chosen() -> float | None:
            if field.value() < limits[0] - step / 2:
                return None
            return int(field.value()) if whole else field.value()

        self.field(name, title, field, chosen, hint)

    def only_where(self, field: QComboBox, shown: Callable[[], bool], names: Sequence[str]) -> None:
        """What `names` are fields of is to be seen only where it counts; `field` decides."""

        def draw() -> None:
            for name in names:
                for widget in self._parts[name]:
                    widget.setVisible(shown())

        field.currentIndexChanged.connect(lambda _: draw())
        draw()

    def check(self, name: str, title: str, value: bool, hint: str = "") -> None:
        field = QCheckBox(title)
        field.setChecked(value)
        field.setAccessibleDescription(hint)
        self._layout.insertSpacing(self._layout.count() - 1, 9)
        self.add(field)
        if hint:
            self.add(label(hint, "muted", wrap=True))
        self._values[name] = field.isChecked


class _Choice(QComboBox):
    """Says that it can be opened, and … where a name is too long for it. Scrolling the page must not change it."""

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QStylePainter(self)
        option = QStyleOptionComboBox()
        self.initStyleOption(option)
        room = self.width() - _ARROW - 22
        option.currentText = self.fontMetrics().elidedText(option.currentText, Qt.TextElideMode.ElideRight, room)
        painter.drawComplexControl(QStyle.ComplexControl.CC_ComboBox, option)
        painter.drawControl(QStyle.ControlElement.CE_ComboBoxLabel, option)
        arrow = icon("down", self.palette().color(QPalette.ColorRole.PlaceholderText).name())
        arrow.paint(painter, self.width() - _ARROW - 8, (self.height() - _ARROW) // 2, _ARROW, _ARROW)

    def wheelEvent(self, event: QWheelEvent) -> None:
        event.ignore()


class _Decimal(QDoubleSpinBox):
    def __init__(self) -> None:
        super().__init__()
        self.lineEdit().setTextMargins(*_MARGINS)

    def wheelEvent(self, event: QWheelEvent) -> None:
        event.ignore()


class _Whole(QSpinBox):
    def __init__(self) -> None:
        super().__init__()
        self.lineEdit().setTextMargins(*_MARGINS)

    def wheelEvent(self, event: QWheelEvent) -> None:
        event.ignore()
