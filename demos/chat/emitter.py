"""Who wants to know is told: the view-model's way to speak to widgets without knowing any."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Emitter(Generic[T]):
    """Calls everyone who subscribed, in order, in the thread that emits."""

    def __init__(self) -> None:
        self._listeners: list[Callable[[T], None]] = []

    def subscribe(self, listener: Callable[[T], None]) -> Callable[[], None]:
        """Returns the way to unsubscribe; calling that twice is harmless."""
        self._listeners.append(listener)

        def forget() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return forget

    def emit(self, value: T) -> None:
        for listener in list(self._listeners):
            listener(value)
