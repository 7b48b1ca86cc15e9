"""Which model: a file here, or one on the hub, which can be fetched at once, paused and gone on with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtWidgets import QFileDialog, QHBoxLayout, QLineEdit, QProgressBar, QPushButton, QVBoxLayout, QWidget

from demos.chat.ui.look import label, tool

if TYPE_CHECKING:
    from demos.chat.ui.look import Look
    from demos.chat.viewmodel.downloads import DownloadModel

_FILES = "Models (*.gguf *.onnx);;All files (*)"


class ModelPicker(QWidget):
    def __init__(self, look: Look, name: str, spec: str, download: DownloadModel) -> None:
        super().__init__()
        self._download = download
        self.field = QLineEdit(spec)
        self.field.setAccessibleName(name)
        self.field.setPlaceholderText("A .gguf or .onnx file, a folder, or hf://owner/name")
        self.field.textChanged.connect(lambda _: self._draw())
        row = QHBoxLayout()
        row.setSpacing(4)
        row.addWidget(self.field, 1)
        row.addWidget(tool(look, "file", f"Choose a file: {name}", self._choose))
        self._get = QPushButton("Download")
        self._get.clicked.connect(self._toggle)
        self._cancel = QPushButton("Cancel")
        self._cancel.clicked.connect(download.cancel)
        self._bar = QProgressBar()
        self._bar.setTextVisible(False)
        self._bar.setRange(0, 1000)
        self._bar.setAccessibleName(f"Download of {name}")
        self._said = label("", "muted", wrap=True)
        below = QHBoxLayout()
        below.addWidget(self._get)
        below.addWidget(self._cancel)
        below.addWidget(self._bar, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(5)
        layout.addLayout(row)
        layout.addLayout(below)
        layout.addWidget(self._said)
        forget = download.changed.subscribe(lambda _: self._draw())
        self.destroyed.connect(lambda *_: forget())
        self._draw()

    def spec(self) -> str:
        return self.field.text().strip()

    def _draw(self) -> None:
        download, on_hub = self._download, self.spec().startswith("hf://")
        state = download.state
        self._get.setVisible(on_hub)
        self._get.setText(
            {"running": "Pause", "paused": "Go on", "done": "Look for a newer one"}.get(state, "Download")
        )
        self._cancel.setVisible(on_hub and state in ("running", "paused"))
        self._bar.setVisible(on_hub and state in ("running", "paused"))
        self._bar.setValue(int(1000 * download.fraction))
        self._said.setVisible(on_hub and state != "idle")
        match state:
            case "running" | "paused":
                of = f"{download.done_bytes / 1e6:,.0f} of {download.total_bytes / 1e6:,.0f} MB"
                words = of if download.total_bytes else "asking the hub …"
                self._said.setText(words + (", paused" if state == "paused" else ""))
            case "done":
                self._said.setText("It is here.")
            case "failed" if download.problem is not None:
                self._said.setText(f"{download.problem.title}: {download.problem.text}")
            case _:
                self._said.setText("")

    def _toggle(self) -> None:
        if self._download.state == "running":
            self._download.pause()
        else:
            self._download.start(self.spec())

    def _choose(self) -> None:
        name, _ = QFileDialog.getOpenFileName(self, "Choose a model", self.spec(), _FILES)
        if name:
            self.field.setText(name)
