"""The two sides as they are shown: loading, ready, failed; emulated or not; unplugged or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from demos.chat.answering.states import SideState
from demos.chat.emitter import Emitter

if TYPE_CHECKING:
    from demos.chat.answering.holder import Answering
    from demos.chat.answering.setup import Setup
    from demos.chat.answering.states import Side
    from demos.chat.background import Background


class Holder(Protocol):
    """What is needed of a StageHolder. Called on the event loop's thread only."""

    async def open(self, setup: Setup) -> None: ...
    async def answering(self) -> Answering | None: ...
    def stop_loading(self, side: Side) -> None: ...
    def unplug(self, unplugged: bool) -> None: ...
    async def slower(self) -> str | None: ...
    async def close(self) -> None: ...


class SidesModel:
    def __init__(self, background: Background, holder: Holder) -> None:
        self.changed: Emitter[None] = Emitter()
        self.failed: Emitter[Exception] = Emitter()
        #: A side has failed, and why.
        self.side_failed: Emitter[SideState] = Emitter()
        self.unplugged = False
        #: Why times are not quite those of the emulated hardware; None while they are.
        self.slower: str | None = None
        self.setup: Setup | None = None
        self._states: dict[Side, SideState] = {
            "device": SideState("device", "off"),
            "cloud": SideState("cloud", "off"),
        }
        self._background = background
        self._holder = holder

    @property
    def device(self) -> SideState:
        return self._states["device"]

    @property
    def cloud(self) -> SideState:
        return self._states["cloud"]

    @property
    def emulated(self) -> bool:
        """Whether any figure that is shown now is of hardware or a network that is not here."""
        return self.device.emulated or self.cloud.emulated

    @property
    def can_unplug(self) -> bool:
        """An own cloud process, or an emulated network, has a plug; a real network has its own."""
        setup = self.setup
        return setup is not None and setup.cloud is not None and self.cloud.phase == "ready" and self.cloud.emulated

    def open(self, setup: Setup) -> None:
        self.setup, self.unplugged, self.slower = setup, False, None
        self._background.run(lambda: self._holder.open(setup), failed=self.failed.emit)

    def open_again(self) -> None:
        """After a side failed or was stopped."""
        if self.setup is not None:
            self.open(self.setup)

    def stop_loading(self, side: Side) -> None:
        self._background.call(lambda: self._holder.stop_loading(side))

    def unplug(self, unplugged: bool) -> None:
        """Break the network to the cloud, or mend it."""
        self.unplugged = unplugged
        self._background.call(lambda: self._holder.unplug(unplugged))
        self.changed.emit(None)

    def look(self) -> None:
        """After an answer: whether this machine kept up with what it emulates."""
        self._background.run(self._holder.slower, self._kept_up, self.failed.emit)

    def _kept_up(self, slower: str | None) -> None:
        if slower != self.slower:
            self.slower = slower
            self.changed.emit(None)

    def toggle_plug(self) -> None:
        """The other way round, where there is a plug."""
        if self.can_unplug:
            self.unplug(not self.unplugged)

    def note(self, state: SideState) -> None:
        """How far a side is, told on the screen's thread."""
        self._states[state.side] = state
        self.changed.emit(None)
        if state.phase == "failed":
            self.side_failed.emit(state)

    async def answering(self) -> Answering | None:
        """On the event loop's thread."""
        return await self._holder.answering()

    def why_not(self) -> str:
        """Why nobody is there to answer."""
        parts = [f"{side}: {state.text or state.phase}" for side, state in self._states.items()]
        return "; ".join(parts) + ". Choose a model or a cloud in the settings"
