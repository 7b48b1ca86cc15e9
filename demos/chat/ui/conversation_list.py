"""The rows of the sidebar: headings and conversations, painted rather than made of widgets, so that thousands fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from PySide6.QtCore import QAbstractListModel, QModelIndex, QPersistentModelIndex, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QFont, QPainter
from PySide6.QtWidgets import QStyle, QStyledItemDelegate, QStyleOptionViewItem

from demos.chat.ui.icons import icon
from demos.chat.viewmodel.wording import age_group

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PySide6.QtCore import QObject

    from demos.chat.history.records import Summary
    from demos.chat.ui.look import Look

Index: TypeAlias = QModelIndex | QPersistentModelIndex
_SUMMARY = Qt.ItemDataRole.UserRole


#: From the right end of a row: where a click asks what can be done with it.
MORE = 34


class ConversationRows(QAbstractListModel):
    def __init__(self) -> None:
        super().__init__()
        #: A heading is a string.
        self._rows: list[str | Summary] = []

    def show_summaries(self, summaries: Sequence[Summary], now: float, *, searching: bool) -> None:
        rows: list[str | Summary] = []
        heading = ""
        for summary in summaries:
            of_this = "Pinned" if summary.pinned else age_group(summary.updated_at, now)
            if searching:
                of_this = "Found"
            elif summary.unsent:
                of_this = "Drafts"
            if of_this != heading:
                heading = of_this
                rows.append(heading)
            rows.append(summary)
        if searching and not rows:
            rows.append("Nothing found")
        if rows != self._rows:
            self.beginResetModel()
            self._rows = rows
            self.endResetModel()

    def rowCount(self, parent: Index | None = None) -> int:
        return 0 if parent is not None and parent.isValid() else len(self._rows)

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> object:
        row = self._rows[index.row()]
        if role == _SUMMARY:
            return row
        if role in (Qt.ItemDataRole.DisplayRole, Qt.ItemDataRole.AccessibleTextRole):
            return row if isinstance(row, str) else row.title + (", pinned" if row.pinned else "")
        if role == Qt.ItemDataRole.ToolTipRole:
            return None if isinstance(row, str) else row.title
        return None

    def flags(self, index: Index) -> Qt.ItemFlag:
        if index.isValid() and isinstance(self._rows[index.row()], str):
            return Qt.ItemFlag.NoItemFlags
        return super().flags(index)

    def summary(self, index: Index) -> Summary | None:
        row = self._rows[index.row()] if index.isValid() else None
        return None if isinstance(row, str) else row

    def index_of(self, id_: str) -> QModelIndex | None:
        for number, row in enumerate(self._rows):
            if not isinstance(row, str) and row.id == id_:
                return self.index(number)
        return None


class ConversationDelegate(QStyledItemDelegate):
    def __init__(self, look: Look, parent: QObject) -> None:
        super().__init__(parent)
        self._look = look

    def sizeHint(self, option: QStyleOptionViewItem, index: Index) -> QSize:
        row = index.data(_SUMMARY)
        line = option.fontMetrics.lineSpacing()
        if isinstance(row, str):
            return QSize(100, line + 14)
        return QSize(100, (2 * line if row.snippet else line) + 16)

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: Index) -> None:
        row, colours = index.data(_SUMMARY), self._look.colours
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        area = QRectF(option.rect).adjusted(0, 1, -1, -1)
        small = QFont(option.font)
        small.setPointSizeF(max(7.0, option.font.pointSizeF() - 2))
        if isinstance(row, str):
            painter.setFont(small)
            painter.setPen(QColor(colours.muted))
            painter.drawText(area.adjusted(10, 6, 0, 0), Qt.AlignmentFlag.AlignVCenter, row)
            painter.restore()
            return
        state = option.state
        if state & (QStyle.StateFlag.State_Selected | QStyle.StateFlag.State_MouseOver):
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(QColor(colours.hover if state & QStyle.StateFlag.State_Selected else colours.raised))
            painter.drawRoundedRect(area, 8, 8)
        if state & QStyle.StateFlag.State_HasFocus:
            painter.setPen(QColor(colours.accent))
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.drawRoundedRect(area.adjusted(0.5, 0.5, -0.5, -0.5), 8, 8)
        text = area.adjusted(10, 7, -8, -7)
        if state & QStyle.StateFlag.State_MouseOver:
            icon("more", colours.ink).paint(painter, int(text.right()) - 14, int(area.center().y()) - 8, 16, 16)
            text.setRight(text.right() - 22)
        elif row.pinned:
            icon("pin", colours.muted).paint(painter, int(text.right()) - 14, int(text.top()) + 1, 14, 14)
            text.setRight(text.right() - 20)
        metrics = option.fontMetrics
        painter.setFont(option.font)
        painter.setPen(QColor(colours.ink))
        title = metrics.elidedText(row.title, Qt.TextElideMode.ElideRight, int(text.width()))
        painter.drawText(text, Qt.AlignmentFlag.AlignTop | Qt.AlignmentFlag.AlignLeft, title)
        if row.snippet:
            painter.setFont(small)
            painter.setPen(QColor(colours.muted))
            snippet = painter.fontMetrics().elidedText(
                " ".join(row.snippet.split()), Qt.TextElideMode.ElideRight, int(text.width())
            )
            painter.drawText(text.adjusted(0, metrics.lineSpacing(), 0, 6), Qt.AlignmentFlag.AlignLeft, snippet)
        painter.restore()
