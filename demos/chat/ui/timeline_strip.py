"""The timeline of an answer: when tokens came, when they were shown, how far the device had read.

The gap between coming and being shown is what the speed controller holds in hand; it shrinks to nothing just as the
device takes over. That is the whole idea, at a glance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy
import pyqtgraph
from PySide6.QtCore import Qt, QTimer
from PySide6.QtGui import QColor
from PySide6.QtWidgets import QSizePolicy, QVBoxLayout, QWidget

from demos.chat.ui.look import label
from demos.side_by_side.palette import seconds
from device_sdk import Source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PySide6.QtGui import QWheelEvent

    from demos.chat.ui.look import Look
    from demos.chat.viewmodel.trace import Trace

_HEIGHT = 126


class TimelineStrip(QWidget):
    def __init__(self, look: Look, height: int = _HEIGHT, *, legend: bool = True, after_ms: int = 0) -> None:
        """The picture is made `after_ms` later: it takes long enough to be a turn of the event loop of its own."""
        super().__init__()
        self._look = look
        self._trace: Trace | None = None
        self._end: float | None = None
        self._plot: _Plot | None = None
        self._height = height
        self._legend = label("", "muted", wrap=True)
        self._legend.setTextFormat(Qt.TextFormat.RichText)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.setSpacing(2)
        self._layout.addWidget(self._legend)
        self._layout.addSpacing(height)
        # Not before it has a parent: it would be a window of its own for a moment.
        self._legend.setVisible(legend)
        look.follow(self, self._redraw)
        QTimer.singleShot(after_ms, self, self._make)

    def show_trace(self, trace: Trace, *, end: float | None = None) -> None:
        """`end`: seconds that the axis shows; None for as long as the answer takes."""
        self._trace, self._end = trace, end
        self._redraw()

    def _make(self) -> None:
        self._plot = _Plot()
        self._plot.setFixedHeight(self._height)
        self._layout.takeAt(1)
        self._layout.addWidget(self._plot)
        self._redraw()

    def _redraw(self) -> None:
        colours, trace = self._look.colours, self._trace
        self._legend.setText(
            f'<span style="color:{colours.cloud}">●</span> from the cloud &nbsp; '
            f'<span style="color:{colours.device}">●</span> from the device &nbsp; '
            f'<span style="color:{colours.muted}">▒</span> in hand, not yet shown &nbsp; '
            f'<span style="color:{colours.device}">▁▃▅</span> device reads the prompt'
        )
        if trace is None:
            return
        self.setAccessibleDescription(described(trace))
        if self._plot is None:
            return
        self._plot.dress(colours.window, colours.muted, colours.line)
        self._plot.draw(trace, self._end, colours.cloud, colours.device, colours.muted)
        self._plot.setToolTip(described(trace))


def described(trace: Trace) -> str:
    """The picture in words, for whoever cannot see it."""
    if not trace.releases:
        return "No token was shown yet."
    first, last = seconds(1000 * trace.releases[0]), seconds(1000 * trace.releases[-1])
    words = [f"{len(trace.releases)} tokens in {last}, the first after {first}."]
    if trace.handover is not None and trace.handover < len(trace.releases):
        at = seconds(1000 * trace.releases[trace.handover])
        words.append(f"The device took over at token {trace.handover + 1}, after {at}.")
    gap = trace.largest_gap()
    if gap is not None:
        words.append(f"The largest gap was {seconds(1000 * gap[1])}, before token {gap[0] + 1}.")
    return " ".join(words)


class _Plot(pyqtgraph.GraphicsView):  # type: ignore[misc]  # pyqtgraph has no types
    """A view box with two axes, and no more: a PlotWidget brings menus that nobody opens and takes as long to make as
    the rest of the window. Items are made once and moved, as a live strip is drawn many times a second."""

    def __init__(self) -> None:
        super().__init__()
        self.setFrameShape(self.Shape.NoFrame)
        for widget in (self, self.viewport()):
            widget.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self._box: Any = pyqtgraph.ViewBox(enableMenu=False, enableMouse=False)
        self._box.disableAutoRange()
        self._axes = (pyqtgraph.AxisItem("left"), _Seconds("bottom"))
        self._axes[0].setWidth(34)
        self._axes[1].setHeight(22)
        grid = pyqtgraph.GraphicsLayout()
        grid.setContentsMargins(0, 4, 6, 0)
        grid.setSpacing(0)
        grid.addItem(self._axes[0], 0, 0)
        grid.addItem(self._box, 0, 1)
        grid.addItem(self._axes[1], 1, 1)
        for axis in self._axes:
            axis.linkToView(self._box)
            axis.setStyle(tickLength=-3)
        self._axes[0].setGrid(22)
        self.setCentralItem(grid)
        self._reading: Any = pyqtgraph.PlotCurveItem(fillLevel=0)
        # Unseen, but not without a pen: only what is drawn can be filled.
        unseen = pyqtgraph.mkPen(0, 0, 0, 0)
        self._came: Any = pyqtgraph.PlotCurveItem(pen=unseen)
        self._held_low: Any = pyqtgraph.PlotCurveItem(pen=unseen)
        self._held: Any = pyqtgraph.FillBetweenItem(self._came, self._held_low)
        self._lines = {source: pyqtgraph.PlotCurveItem(connect="finite", antialias=True) for source in Source}
        self._dots: Any = pyqtgraph.ScatterPlotItem(size=4, pen=None)
        self._mark: Any = pyqtgraph.InfiniteLine(angle=90)
        self._word: Any = pyqtgraph.TextItem("", anchor=(0, 0))
        for item in (self._reading, self._came, self._held_low, self._held, *self._lines.values(), self._dots):
            self._box.addItem(item, ignoreBounds=True)
        for item in (self._mark, self._word):
            self._box.addItem(item, ignoreBounds=True)
            item.setVisible(False)

    def wheelEvent(self, event: QWheelEvent) -> None:
        event.ignore()

    def dress(self, background: str, ink: str, line: str) -> None:
        self.setBackground(background)
        for axis in self._axes:
            axis.setPen(pyqtgraph.mkPen(line))
            axis.setTextPen(pyqtgraph.mkPen(ink))

    def draw(self, trace: Trace, end: float | None, cloud: str, device: str, muted: str) -> None:
        counts = list(range(1, len(trace.releases) + 1))
        top = max(len(counts), len(trace.arrivals), 8) * 1.12
        self._draw_reading(trace, device, top)
        paired = min(len(trace.arrivals), len(counts))
        self._came.setData(_array(trace.arrivals[:paired]), _array(counts[:paired]))
        self._held_low.setData(_array(trace.releases[:paired]), _array(counts[:paired]))
        self._held.setBrush(_tinted(muted, 46))
        self._held.setVisible(paired > 1)
        for source, colour in ((Source.CLOUD, cloud), (Source.DEVICE, device)):
            xs, ys = _of_source(trace, source)
            self._lines[source].setData(_array(xs), _array(ys), pen=pyqtgraph.mkPen(colour, width=2.6))
        came = [i for i in range(len(trace.arrivals)) if i >= len(trace.sources) or trace.sources[i] is Source.CLOUD]
        self._dots.setData([trace.arrivals[i] for i in came], [i + 1 for i in came], brush=_tinted(cloud, 150))
        end = max(trace.end if end is None else end, 0.5) * 1.02
        self._draw_hand_over(trace, device, top, end)
        self._box.setRange(xRange=(0, end), yRange=(0, top), padding=0)

    def _draw_reading(self, trace: Trace, colour: str, top: float) -> None:
        """How much of the prompt the device has read, as a hill that is full where it takes over."""
        own = next((i for i, source in enumerate(trace.sources) if source is Source.DEVICE), None)
        until = trace.releases[own] if own is not None else trace.end
        points = [(at, tokens) for at, tokens in trace.device if at <= until]
        # With a refinement less than the prompt is read: full is what it had read when it took over.
        whole = max(points[-1][1] if points and own is not None else trace.prompt_tokens * trace.kept, 1)
        xs = [0.0, *(at for at, _ in points)] if points else []
        ys = [0.0, *(min(1.0, tokens / whole) * top * 0.9 for _, tokens in points)] if points else []
        pen, brush = pyqtgraph.mkPen(_tinted(colour, 110), width=1), pyqtgraph.mkBrush(_tinted(colour, 30))
        self._reading.setData(_array(xs), _array(ys), pen=pen, brush=brush)

    def _draw_hand_over(self, trace: Trace, colour: str, top: float, end: float) -> None:
        shown = trace.handover is not None and trace.handover < len(trace.releases)
        self._mark.setVisible(shown)
        self._word.setVisible(shown)
        if trace.handover is None or not shown:
            return
        at = trace.releases[trace.handover]
        self._mark.setPos(at)
        self._mark.setPen(pyqtgraph.mkPen(colour, width=1, style=Qt.PenStyle.DashLine))
        self._word.setText("hand-over", color=colour)
        # Left of the line where the right has no room; above the curve while that is low, else below it, else nowhere:
        # the words have their mark, too.
        width = end * self._word.boundingRect().width() / max(1.0, self._box.width())
        left = at + width > end
        first, last = sorted((at, at - width if left else at + width))
        low = sum(release <= last for release in trace.releases) < 0.75 * len(trace.releases)
        high = sum(release <= first for release in trace.releases) > 0.3 * len(trace.releases)
        self._word.setVisible(low or high)
        self._word.setAnchor((1 if left else 0, 0 if low else 1))
        self._word.setPos(at, top if low else 0)


class _Seconds(pyqtgraph.AxisItem):  # type: ignore[misc]  # as above
    def tickStrings(self, values: list[float], scale: float, spacing: float) -> list[str]:
        return [f"{round(value, 3):g} s" for value in values]


def _array(values: Sequence[float]) -> Any:
    return numpy.asarray(values, dtype=float)


def _of_source(trace: Trace, source: Source) -> tuple[list[float], list[float]]:
    """The release curve's parts of one source, from the token before on, so that the curve has no hole."""
    xs, ys = [], []
    for index, at in enumerate(trace.releases):
        if trace.sources[index] is source:
            if index and trace.sources[index - 1] is not source:
                xs += [float("nan"), trace.releases[index - 1]]
                ys += [float("nan"), float(index)]
            xs.append(at)
            ys.append(float(index + 1))
    return xs, ys


def _tinted(colour: str, alpha: int) -> QColor:
    tinted = QColor(colour)
    tinted.setAlpha(alpha)
    return tinted
