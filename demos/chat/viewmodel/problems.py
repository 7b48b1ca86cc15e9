"""What went wrong, in words for the person at the screen: what it is, and what to do."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from demos.chat.documents import DocumentError
from demos.chat.history.errors import BadImportError, HistoryError, HistoryFullError
from device_sdk import (
    ConfigurationError,
    ConnectError,
    DeviceError,
    GenerationFailedError,
    IncompatibleError,
    LinkLostError,
    Notice,
    PromptTooLongError,
    RejectedError,
    UnauthorizedError,
)
from model_runtime.errors import (
    DiskFullError,
    DownloadError,
    EngineUnavailableError,
    LoadError,
    ModelAccessError,
    ModelFormatError,
    ModelNotFoundError,
    TemplateError,
)
from speed_controller.errors import SplitFileError

if TYPE_CHECKING:
    from demos.chat.answering.states import SideState

#: Where a click on the problem leads.
Remedy = Literal["settings", "none"]


@dataclass(frozen=True, slots=True)
class Problem:
    title: str
    text: str
    remedy: Remedy = "none"


class NobodyAnswersError(Exception):
    """Neither side is there; the message says why of each."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of error: its title, what to do where the error's own words do not say, and where."""

    of: type[Exception]
    title: str
    advice: str = ""
    remedy: Remedy = "none"


#: The first that fits. Errors of loading and of the history say themselves what to do.
_KINDS = (
    _Kind(
        UnauthorizedError,
        "The cloud does not accept the key",
        "Put the right one into the settings, or ask whoever runs the service for one.",
        "settings",
    ),
    _Kind(
        IncompatibleError,
        "The cloud runs another model or version",
        "Leave the model of the service empty in the settings to take what it offers, or choose another service.",
        "settings",
    ),
    _Kind(
        ConnectError,
        "The cloud cannot be reached",
        "Check its address in the settings, that it runs, and the network. “On device only” needs no cloud.",
        "settings",
    ),
    _Kind(LinkLostError, "The connection to the cloud was lost", "Try again once the network is back."),
    _Kind(RejectedError, "The cloud is busy or refuses", "Try again later, or answer on the device."),
    _Kind(PromptTooLongError, "This is too long for the model", "Leave out documents, or begin a new chat."),
    _Kind(
        ModelFormatError,
        "The model file is damaged or of an unknown kind",
        "Get it anew, or choose another one in the settings.",
        "settings",
    ),
    _Kind(ModelNotFoundError, "The model is not there", remedy="settings"),
    _Kind(ModelAccessError, "The hub does not let you have this model", remedy="settings"),
    _Kind(
        DownloadError,
        "The model could not be downloaded",
        "What has arrived is kept: go on once the network is back.",
        "settings",
    ),
    _Kind(DiskFullError, "The disk is full", "Free some space and go on: what has arrived is kept.", "settings"),
    _Kind(EngineUnavailableError, "What runs this model is not installed", remedy="settings"),
    _Kind(LoadError, "The model cannot be loaded", "Choose another one in the settings.", "settings"),
    _Kind(SplitFileError, "The split configuration cannot be used", "Choose another one, or none.", "settings"),
    _Kind(
        TemplateError, "The model refuses these messages", "Leave the system prompt empty in the settings.", "settings"
    ),
    _Kind(
        DeviceError,
        "The device's model failed",
        "Start it again beside its name above, or choose another one in the settings.",
        "settings",
    ),
    _Kind(NobodyAnswersError, "Nobody is there to answer", remedy="settings"),
    _Kind(ConfigurationError, "This cannot be done as set", remedy="settings"),
    _Kind(GenerationFailedError, "The answer could not be finished", "Try again."),
    _Kind(BadImportError, "This cannot be imported"),
    _Kind(HistoryFullError, "The disk is full: this is not being saved"),
    _Kind(HistoryError, "The history is not available"),
    _Kind(DocumentError, "This cannot be attached"),
)
_FULL = (errno.ENOSPC, errno.EDQUOT)

_NOTICES: dict[str, str] = {
    "cloud_refused": "The device goes on without the cloud",
    "cloud_lost": "The device goes on without the cloud",
    "device_unusable": "The device takes no part",
    "device_failed": "The cloud goes on without the device",
    "refinement_ignored": "The whole prompt is read",
    "extended": "The cloud was asked for more tokens",
}


def problem_of(error: Exception) -> Problem:
    """One for every error; what nobody foresaw says its type."""
    if isinstance(error, GenerationFailedError) and error.causes:
        kind = _kind(error.causes[0]) or _kind(error)
    else:
        kind = _kind(error)
    if kind is not None:
        return Problem(kind.title, f"{_sentence(str(error))} {kind.advice}".strip(), kind.remedy)
    if isinstance(error, OSError) and error.strerror:
        where = _sentence(": ".join(str(part) for part in (error.filename, error.strerror) if part))
        if error.errno in _FULL:
            return Problem("The disk is full", f"{where} Free some space and try again.")
        return Problem("The file cannot be used", f"{where} Choose another place, or check its permissions.")
    return Problem("Something unexpected happened", _sentence(f"{type(error).__name__}: {error}"))


def _kind(error: Exception) -> _Kind | None:
    return next((kind for kind in _KINDS if isinstance(error, kind.of)), None)


def side_problem(state: SideState) -> Problem:
    """A side that is not there, where the other one may still answer."""
    title = "The device's model cannot be used" if state.side == "device" else "The cloud is not there"
    advice = "The other side answers alone. Start it again beside its name above, or change it in the settings."
    return Problem(title, f"{_sentence(state.text)} {advice}", "settings")


def notice_text(notice: Notice) -> str:
    """A quiet line beside an answer that goes on."""
    return f"{_NOTICES.get(notice.kind, 'Note')}: {notice.message}"


def _sentence(text: str) -> str:
    text = text.strip() or "no more is known"
    # The name of a setting, or of a file, is no word to begin with a capital.
    first = text.split(maxsplit=1)[0]
    if first.isalpha():
        text = text[0].upper() + text[1:]
    return text + ("" if text.endswith((".", "!", "?", ")")) else ".")
