"""What `HybridClient.stream` yields. Exactly one terminal event (`Finished`, `Failed`, `Cancelled`) comes, last."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from device_sdk.errors import GenerationFailedError
from device_sdk.report import Answer, Source


@dataclass(frozen=True, slots=True)
class Token:
    """One output token, at the moment when it is to be shown.

    `text` is what it adds to the visible text: empty while a character or a possible stop string is incomplete.
    `token_id` is None where text travelled. When an answer ends in what might have become a stop string, the text
    held back comes in one more event with the last token's index and no id.
    """

    index: int
    text: str
    source: Source
    token_id: int | None


@dataclass(frozen=True, slots=True)
class HandOver:
    """The device supplies the answer from output token `index` on."""

    index: int


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that did not stop the answer: the cloud refused or was lost, the device failed, more was granted."""

    kind: Literal["cloud_refused", "cloud_lost", "device_unusable", "device_failed", "extended"]
    message: str


@dataclass(frozen=True, slots=True)
class Finished:
    """Terminal: the answer is whole."""

    answer: Answer


@dataclass(frozen=True, slots=True)
class Failed:
    """Terminal: no side could finish. `error.answer` holds what there is."""

    error: GenerationFailedError


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Terminal: the caller cancelled."""

    answer: Answer


Event: TypeAlias = Token | HandOver | Notice | Finished | Failed | Cancelled
