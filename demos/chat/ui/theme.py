"""Colours and measures, light and dark, and the style sheet made of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from PySide6.QtCore import Qt
from PySide6.QtGui import QColor, QGuiApplication, QPalette

if TYPE_CHECKING:
    from demos.chat.viewmodel.settings import Settings, Theme


@dataclass(frozen=True, slots=True)
class Colours:
    dark: bool
    window: str
    side: str
    raised: str
    hover: str
    line: str
    ink: str
    muted: str
    accent: str
    on_accent: str
    accent_soft: str
    #: Text and marks of either source: told apart by every kind of sight, and by lightness.
    cloud: str
    device: str
    bad: str
    bad_soft: str
    note_soft: str
    code: str
    kept: str


LIGHT = Colours(
    dark=False, window="#ffffff", side="#f6f6f4", raised="#f2f2ef", hover="#e9e9e5", line="#e3e3df", ink="#1d2025",
    muted="#666b74", accent="#0f766e", on_accent="#ffffff", accent_soft="#dff1ee", cloud="#1b5fae", device="#a84a08",
    bad="#b3261e", bad_soft="#fdeceb", note_soft="#f7f3e8", code="#f6f6f4", kept="#fff1b8",
)  # fmt: skip
DARK = Colours(
    dark=True, window="#1b1c1f", side="#151619", raised="#27292d", hover="#303338", line="#34373c", ink="#e8e9eb",
    muted="#9aa0a9", accent="#4fc3b4", on_accent="#0d2522", accent_soft="#1d3b38", cloud="#8cbcf5", device="#f0a868",
    bad="#ff8a80", bad_soft="#3c2423", note_soft="#2b2a24", code="#141518", kept="#5c4d12",
)  # fmt: skip

MONOSPACE = '"JetBrains Mono", "SF Mono", "Cascadia Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace'


def colours_of(theme: Theme) -> Colours:
    if theme == "system":
        scheme = QGuiApplication.styleHints().colorScheme()
        return DARK if scheme is Qt.ColorScheme.Dark else LIGHT
    return DARK if theme == "dark" else LIGHT


def palette_of(colours: Colours) -> QPalette:
    """For what no style sheet reaches."""
    palette = QPalette()
    roles = {
        QPalette.ColorRole.Window: colours.window,
        QPalette.ColorRole.WindowText: colours.ink,
        QPalette.ColorRole.Base: colours.window,
        QPalette.ColorRole.AlternateBase: colours.side,
        QPalette.ColorRole.Text: colours.ink,
        QPalette.ColorRole.Button: colours.raised,
        QPalette.ColorRole.ButtonText: colours.ink,
        QPalette.ColorRole.BrightText: colours.bad,
        QPalette.ColorRole.Highlight: colours.accent,
        QPalette.ColorRole.HighlightedText: colours.on_accent,
        QPalette.ColorRole.PlaceholderText: colours.muted,
        QPalette.ColorRole.Link: colours.accent,
        QPalette.ColorRole.ToolTipBase: colours.raised,
        QPalette.ColorRole.ToolTipText: colours.ink,
    }
    for role, colour in roles.items():
        palette.setColor(role, QColor(colour))
    for role in (QPalette.ColorRole.Text, QPalette.ColorRole.ButtonText, QPalette.ColorRole.WindowText):
        palette.setColor(QPalette.ColorGroup.Disabled, role, QColor(colours.muted))
    return palette


def document_style(colours: Colours, settings: Settings) -> str:
    """Of the rich text of an answer."""
    sources = ""
    if settings.source_colours:
        sources = f".cloud {{ color: {colours.cloud}; }} .device {{ color: {colours.device}; }}"
    small, code = settings.font_size - 1, settings.font_size - 0.5
    return f"""
        body {{ color: {colours.ink}; }} {sources}
        .handover {{ color: {colours.device}; font-weight: 700; }}
        .kept {{ background-color: {colours.kept}; }} .dropped {{ color: {colours.muted}; }}
        a {{ color: {colours.accent}; text-decoration: none; }}
        p, li {{ line-height: 145%; }} p {{ margin: 0 0 9px 0; }} li {{ margin: 2px 0; }}
        h1 {{ font-size: {settings.font_size + 5}pt; }} h2 {{ font-size: {settings.font_size + 3}pt; }}
        h3, h4, h5, h6 {{ font-size: {settings.font_size + 1}pt; }}
        code, pre {{ font-family: {MONOSPACE}; font-size: {code}pt; }} code {{ background-color: {colours.raised}; }}
        table {{ border-collapse: collapse; margin: 2px 0 10px 0; }}
        td, th {{ padding: 4px 9px; border: 1px solid {colours.line}; }}
        blockquote {{ color: {colours.muted}; }} small {{ font-size: {small}pt; color: {colours.muted}; }}
    """


def style_sheet(colours: Colours, settings: Settings) -> str:
    c, size = colours, settings.font_size
    return f"""
    QMainWindow, QDialog, #page, #transcript, #column {{ background: {c.window}; }}
    QScrollArea {{ border: none; background: transparent; }}
    #sidebar {{ background: {c.side}; border-right: 1px solid {c.line}; }}
    #sidebar QLabel#section {{ color: {c.muted}; font-size: {size - 2}pt; padding: 10px 10px 2px 10px; }}
    #header {{ background: {c.window}; border-bottom: 1px solid {c.line}; }}
    #title {{ font-weight: 600; }}
    QLabel[role="muted"], QLabel[role="figure-label"] {{ color: {c.muted}; font-size: {size - 1}pt; }}
    QLabel[role="figure"] {{ font-weight: 600; }}
    QLabel[role="h1"] {{ font-size: {size + 9}pt; font-weight: 600; }}
    QLabel[role="h2"] {{ font-size: {size + 2}pt; font-weight: 600; }}
    QLabel[role="pill"] {{ color: {c.muted}; background: {c.raised}; border-radius: 8px; padding: 2px 8px;
        font-size: {size - 2}pt; }}
    QToolTip {{ background: {c.raised}; color: {c.ink}; border: 1px solid {c.line}; padding: 4px 6px; }}

    QListView#conversations {{ background: transparent; border: none; outline: none; }}

    QLineEdit, QComboBox, QSpinBox, QDoubleSpinBox, QPlainTextEdit[role="field"] {{ background: {c.window};
        border: 1px solid {c.line}; border-radius: 8px; padding: 6px 9px; min-height: {size + 5}px;
        selection-background-color: {c.accent}; selection-color: {c.on_accent}; }}
    QLineEdit:focus, QComboBox:focus, QSpinBox:focus, QDoubleSpinBox:focus, QPlainTextEdit[role="field"]:focus
        {{ border: 1px solid {c.accent}; }}
    QAbstractSpinBox QLineEdit, QAbstractSpinBox QLineEdit:focus {{ border: none; background: transparent;
        padding: 0; min-height: 0; }}
    QLineEdit#search {{ background: {c.raised}; border: 1px solid transparent; }}
    QLineEdit#search:focus {{ border: 1px solid {c.accent}; }}
    QLineEdit:disabled, QComboBox:disabled, QSpinBox:disabled, QDoubleSpinBox:disabled {{ color: {c.muted};
        background: {c.side}; }}
    QComboBox::drop-down {{ border: none; width: 22px; }}
    QComboBox QAbstractItemView {{ background: {c.window}; border: 1px solid {c.line}; outline: none;
        selection-background-color: {c.accent_soft}; selection-color: {c.ink}; padding: 4px; }}
    QSpinBox::up-button, QSpinBox::down-button, QDoubleSpinBox::up-button, QDoubleSpinBox::down-button
        {{ width: 0; border: none; }}

    QPushButton {{ background: {c.raised}; border: 1px solid {c.line}; border-radius: 8px; padding: 6px 14px; }}
    QPushButton:hover {{ background: {c.hover}; }}
    QPushButton:focus {{ border: 1px solid {c.accent}; }}
    QPushButton:disabled {{ color: {c.muted}; }}
    QPushButton[role="primary"] {{ background: {c.accent}; color: {c.on_accent}; border: 1px solid {c.accent};
        font-weight: 600; }}
    QPushButton[role="primary"]:focus {{ border: 1px solid {c.ink}; }}
    QPushButton[role="new"] {{ text-align: left; background: transparent; border: 1px solid transparent;
        padding: 7px 9px; }}
    QPushButton[role="new"]:hover {{ background: {c.hover}; }}
    QPushButton[role="new"]:focus {{ border: 1px solid {c.accent}; }}
    QPushButton[role="card"] {{ text-align: left; background: {c.window}; border: 1px solid {c.line};
        border-radius: 12px; padding: 0; }}
    QPushButton[role="card"]:hover, QPushButton[role="card"]:focus {{ border: 1px solid {c.accent}; }}
    QToolButton {{ background: transparent; border: 1px solid transparent; border-radius: 7px; padding: 4px; }}
    QToolButton:hover, QToolButton:checked {{ background: {c.hover}; }}
    QToolButton:focus {{ border: 1px solid {c.accent}; }}
    QToolButton::menu-indicator {{ image: none; }}
    QToolButton[role="pill"] {{ color: {c.muted}; border-radius: 13px; padding: 4px 10px; font-size: {size - 1}pt; }}
    QToolButton[role="send"] {{ background: {c.accent}; border-radius: 17px; }}
    QToolButton[role="send"]:disabled {{ background: {c.raised}; }}
    QToolButton[role="send"]:focus {{ border: 2px solid {c.ink}; }}

    QToolButton[role="jump"] {{ background: {c.window}; border: 1px solid {c.line}; border-radius: 17px; }}
    QToolButton[role="jump"]:hover {{ background: {c.hover}; }}
    QToolButton[role="jump"]:focus {{ border: 1px solid {c.accent}; }}

    QMenu {{ background: {c.window}; border: 1px solid {c.line}; border-radius: 8px; padding: 5px; }}
    QMenu::item {{ padding: 6px 22px 6px 12px; border-radius: 6px; }}
    QMenu::item:selected {{ background: {c.hover}; }}
    QMenu::item:disabled {{ color: {c.muted}; }}
    QMenu::separator {{ height: 1px; background: {c.line}; margin: 4px 8px; }}

    #composer {{ background: {c.window}; border: 1px solid {c.line}; border-radius: 18px; }}
    #composer[focused="true"] {{ border: 1px solid {c.accent}; }}
    #composer[dropping="true"] {{ border: 2px dashed {c.accent}; background: {c.accent_soft}; }}
    #composer QPlainTextEdit {{ background: transparent; border: none; selection-background-color: {c.accent};
        selection-color: {c.on_accent}; }}
    #question {{ background: {c.raised}; border-radius: 16px; }}
    #question QTextBrowser, #answer QTextBrowser, #code QTextBrowser {{ background: transparent; border: none;
        selection-background-color: {c.accent}; selection-color: {c.on_accent}; }}
    #code {{ background: {c.code}; border: 1px solid {c.line}; border-radius: 10px; }}
    #code QLabel {{ color: {c.muted}; font-size: {size - 2}pt; }}
    #chip {{ background: {c.window}; border: 1px solid {c.line}; border-radius: 9px; }}
    #notice {{ background: {c.note_soft}; border-radius: 9px; }}
    #notice QLabel {{ font-size: {size - 1}pt; }}
    #problem {{ background: {c.bad_soft}; border-radius: 12px; }}
    #problem QLabel[role="problem-title"] {{ color: {c.bad}; font-weight: 600; }}
    #details, #column-card {{ background: {c.window}; border: 1px solid {c.line}; border-radius: 12px; }}
    #toast {{ background: {c.ink}; border-radius: 10px; }}
    #toast QLabel {{ color: {c.window}; }}
    #banner {{ background: {c.bad_soft}; border-bottom: 1px solid {c.line}; }}
    #banner QLabel[role="problem-title"] {{ color: {c.bad}; font-weight: 600; }}

    QProgressBar {{ background: {c.raised}; border: none; border-radius: 3px; max-height: 6px; min-height: 6px; }}
    QProgressBar::chunk {{ background: {c.accent}; border-radius: 3px; }}
    QCheckBox {{ spacing: 8px; }}
    QTabWidget::pane {{ border: none; }}
    QListWidget#pages {{ background: {c.side}; border: none; outline: none; padding: 10px 8px; }}
    QListWidget#pages::item {{ padding: 8px 10px; border-radius: 8px; margin: 1px 0; }}
    QListWidget#pages::item:selected {{ background: {c.hover}; color: {c.ink}; }}
    QScrollBar:vertical {{ background: transparent; width: 10px; margin: 2px; }}
    QScrollBar::handle:vertical {{ background: {c.line}; border-radius: 3px; min-height: 30px; }}
    QScrollBar::handle:vertical:hover {{ background: {c.muted}; }}
    QScrollBar:horizontal {{ background: transparent; height: 10px; margin: 2px; }}
    QScrollBar::handle:horizontal {{ background: {c.line}; border-radius: 3px; min-width: 30px; }}
    QScrollBar::add-line, QScrollBar::sub-line {{ width: 0; height: 0; }}
    QScrollBar::add-page, QScrollBar::sub-page {{ background: transparent; }}
    """
