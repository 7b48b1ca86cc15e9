"""Everything that runs while there is something to ask: engine, cloud process, network, client."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from demos.chat.answering.device import load_device, title_of
from demos.chat.answering.setup import LocalCloud, RemoteCloud
from demos.chat.answering.states import Side, SideState
from demos.side_by_side.cloud_process import CloudProcess, CloudSettings
from demos.side_by_side.errors import DemoError
from device_sdk import ConfigurationError, HybridClient, Mode, PdDeviceError
from device_sdk.testing import LINKS, LinkProxy
from model_runtime.errors import BadInputError, LoadError
from model_runtime.profiles import load_profile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from demos.chat.answering.setup import Setup
    from model_runtime.core import Engine, Message

#: Of the cloud's process, which works in short bursts; the device's engine keeps to one.
_CLOUD_THREADS = 2
#: Between two looks at the cloud's process.
_LOOK_EVERY_S = 0.5
_PORTS = {"ws": 80, "http": 80, "wss": 443, "https": 443}


class Stage:
    """Opened once, closed once. A side that fails is told, and the other one answers alone.

    Everything but `tell` belongs to one event loop; `tell` is called from any thread.
    """

    def __init__(self, setup: Setup, tell: Callable[[SideState], None]) -> None:
        self.setup = setup
        self.client: HybridClient | None = None
        self.cloud: CloudProcess | None = None
        self._tell = tell
        self._stack = AsyncExitStack()
        self._engine: Engine | None = None
        self._link: LinkProxy | None = None
        self._url: str | None = None
        self._loads: dict[Side, asyncio.Task[None]] = {}
        self._watch: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Both sides at once. Raises nothing that a side's state could say."""
        self._loads = {
            "device": asyncio.create_task(self._open_device()),
            "cloud": asyncio.create_task(self._open_cloud()),
        }
        await asyncio.wait(self._loads.values())
        for task in self._loads.values():
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error
        client = self._make_client()
        if client is None:
            return
        self.client = await self._stack.enter_async_context(client)
        await self._warm_up(self.client)
        self._tell_ready()
        if self.cloud is not None:
            self._watch = asyncio.create_task(self._watch_process(self.cloud))

    def _make_client(self) -> HybridClient | None:
        """Of the sides that are there; None where neither is."""
        cloud = self.setup.cloud if isinstance(self.setup.cloud, RemoteCloud) else RemoteCloud("")
        if self._engine is None and self._url is None:
            return None
        mode = Mode.ONLY_ON_DEVICE if self._url is None else Mode.ONLY_IN_CLOUD if self._engine is None else Mode.SPLIT
        try:
            return HybridClient(
                device=self._engine, cloud=self._url, api_key=cloud.api_key, cloud_model=cloud.model, mode=mode
            )
        except ConfigurationError as error:
            # The address, which only the client can read: the device is there as it is.
            if self._url is None:
                raise
            self._url = None
            self._tell(SideState("cloud", "failed", text=str(error)))
            return self._make_client()

    def slower(self) -> str | None:
        """Whether passes took longer than on the emulated device, in words: their times are this machine's."""
        details = self._engine.info.details if self._engine is not None else {}
        if "slower_passes" not in details:
            return None
        return f"{details['slower_passes']} passes took longer than there, by {details['worst_excess_ms']} ms at most"

    @property
    def count(self) -> Callable[[Sequence[Message]], int] | None:
        """Tokens of a prompt, by the device's tokenizer; None without a device."""
        engine = self._engine
        return None if engine is None else lambda messages: len(engine.tokenizer.render_chat(messages))

    def stop_loading(self, side: Side) -> None:
        """Give up on one side. What was downloaded of its model is kept for the next time."""
        if side in self._loads:
            self._loads[side].cancel()

    async def close(self) -> None:
        """End everything; the cloud's process is gone afterwards. Idempotent."""
        for task in self._loads.values():
            task.cancel()
        if self._loads:
            await asyncio.wait(self._loads.values())
        if self._watch is not None:
            self._watch.cancel()
        client, self.client = self.client, None
        if client is not None:
            await client.close()
        await self._stack.aclose()

    # --- the network, for showing what happens without it ---------------------------------------------------------

    @property
    def can_unplug(self) -> bool:
        return self._link is not None

    def unplug(self, unplugged: bool) -> None:
        """Break the connection to the cloud and refuse new ones, or admit them again."""
        if self._link is None:
            return
        if unplugged:
            self._link.refuse()
            self._link.drop()
        else:
            self._link.admit()

    # --- sides ----------------------------------------------------------------------------------------------------

    async def _open_device(self) -> None:
        setup = self.setup.device
        if setup is None:
            return self._tell(SideState("device", "off", text="no model is chosen"))
        self._tell(SideState("device", "loading"))
        try:
            self._engine = await load_device(setup, self._tell)
        except LoadError as error:
            self._tell(SideState("device", "failed", text=str(error)))
        except asyncio.CancelledError:
            self._tell(SideState("device", "stopped", text="loading was stopped"))
            raise
        else:
            self._stack.callback(self._engine.shutdown)
            # Beside a cloud that still starts; the client is not there yet.
            self._tell(SideState("device", "loading", 1.0))
        return None

    async def _open_cloud(self) -> None:
        setup = self.setup.cloud
        if setup is None:
            return self._tell(SideState("cloud", "off", text="no cloud is chosen"))
        self._tell(SideState("cloud", "loading"))
        try:
            if isinstance(setup, LocalCloud):
                await self._start_process(setup)
            else:
                self._url = setup.url
            await self._open_link()
        except (DemoError, LoadError, ConfigurationError, OSError, ValueError) as error:
            self._url = None
            self._tell(SideState("cloud", "failed", text=str(error)))
        except asyncio.CancelledError:
            self._url = None
            self._tell(SideState("cloud", "stopped", text="starting was stopped"))
            raise
        return None

    async def _start_process(self, setup: LocalCloud) -> None:
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="pd-chat-", ignore_cleanup_errors=True))
        settings = CloudSettings(setup.model, Path(folder) / "cloud.log", emulate=setup.profile, threads=_CLOUD_THREADS)
        self.cloud = await self._stack.enter_async_context(CloudProcess(settings))
        self._url = f"ws://127.0.0.1:{self.cloud.port}"

    async def _watch_process(self, cloud: CloudProcess) -> None:
        """Nobody else would say that it is gone: an answer under way just goes on without it."""
        while cloud.running:  # noqa: ASYNC110 - a process, which sets no event
            await asyncio.sleep(_LOOK_EVERY_S)
        self._tell(SideState("cloud", "failed", text="the cloud's process has ended; start it again"))

    async def _open_link(self) -> None:
        """The emulated network in front of the cloud. An own process always gets one, so that it can be unplugged."""
        profile = LINKS[self.setup.link]
        if self._url is None or (self.cloud is None and not profile.emulated):
            return
        address = urlsplit(self._url)
        if address.scheme not in ("ws", "http") or address.hostname is None:
            raise ConfigurationError(
                f"an emulated network needs a cloud without encryption (ws://), not {self._url}: choose no emulation"
            )
        link = LinkProxy(address.hostname, address.port or _PORTS[address.scheme], profile)
        self._link = await self._stack.enter_async_context(link)
        self._url = self._link.url() + address.path

    async def _warm_up(self, client: HybridClient) -> None:
        """So that the first answer does not pay for connections and first passes, and its forecasts know both sides.
        Only where nobody else's cloud is asked."""
        if self.cloud is None:
            return
        modes = [Mode.ONLY_IN_CLOUD] + ([Mode.ONLY_ON_DEVICE, Mode.SPLIT] if self._engine else [])
        for mode in modes:
            # What is wrong will be said by the first answer.
            with contextlib.suppress(PdDeviceError, BadInputError):
                await client.generate("Good morning.", max_tokens=2, mode=mode)

    def _tell_ready(self) -> None:
        setup = self.setup
        if self._engine is not None and setup.device is not None:
            text = title_of(setup.device, self._engine)
            self._tell(SideState("device", "ready", 1.0, text, emulated=setup.device.profile is not None))
        if self._url is not None and setup.cloud is not None:
            self._tell(SideState("cloud", "ready", 1.0, self._cloud_title(), emulated=self._cloud_emulated()))

    def _cloud_emulated(self) -> bool:
        local = isinstance(self.setup.cloud, LocalCloud) and self.setup.cloud.profile is not None
        return local or LINKS[self.setup.link].emulated

    def _cloud_title(self) -> str:
        setup, link = self.setup.cloud, LINKS[self.setup.link]
        if not isinstance(setup, LocalCloud):
            title = setup.url if setup else ""
        elif setup.profile is None:
            title = f"{Path(setup.model).parent.name} in a process on this machine"
        else:
            title = f"{Path(setup.model).parent.name} on an emulated {load_profile(setup.profile).title}"
        return f"{title}, over an emulated {link.name} link" if link.emulated else title
