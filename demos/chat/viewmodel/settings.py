"""Everything a user can choose, as values; what it means for the SDK."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from demos.chat.answering.setup import Cloud, DeviceSetup, LocalCloud, RemoteCloud, Setup
from device_sdk import Mode, PaceSettings, SamplingParams, SplitSettings

Theme = Literal["system", "light", "dark"]


@dataclass(frozen=True, slots=True)
class Settings:
    """As it is saved. Empty texts mean: none."""

    # --- sides
    device_model: str = ""
    device_profile: str = ""
    cloud: Literal["none", "remote", "local"] = "none"
    cloud_url: str = ""
    api_key: str = ""
    cloud_model: str = ""
    local_cloud_model: str = ""
    local_cloud_profile: str = ""
    link: str = "loopback"
    # --- answers
    mode: Mode = Mode.SPLIT
    max_tokens: int = 512
    system_prompt: str = ""
    #: None: as many as needed.
    grant: int | None = None
    #: A split configuration of `pd-plan`; it then decides grant, keep ratio, pace and route by the prompt's length.
    split_file: str = ""
    #: None: the device reads the whole prompt.
    keep_ratio: float | None = SplitSettings().keep_ratio
    pace_mode: Literal["smooth", "fixed", "off"] = "smooth"
    pace_ms: float = 50.0
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0
    #: Of a million cloud output tokens, in any currency.
    price_per_million: float | None = None
    # --- looks
    theme: Theme = "system"
    font_size: int = 10
    source_colours: bool = True
    timelines: bool = True
    reduced_motion: bool = False
    sidebar: bool = True
    #: Width and height when it was closed.
    window: tuple[int, int] | None = None

    def split(self) -> SplitSettings:
        """Raises SettingError (a ValueError) naming what is out of range."""
        pace, defaults = self.pace_ms / 1000, PaceSettings()
        settings = PaceSettings(
            mode=self.pace_mode,
            pace=pace,
            pace_min=min(defaults.pace_min, pace),
            pace_max=max(defaults.pace_max, 1.5 * pace),
        )
        return SplitSettings(
            grant=self.grant, keep_ratio=self.keep_ratio, pace=settings, max_grant=max(256, self.grant or 0)
        )

    def sampling(self) -> SamplingParams:
        """Raises BadInputError naming what is out of range."""
        return SamplingParams(
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
            seed=self.seed,
        )

    def setup(self) -> Setup:
        device = DeviceSetup(self.device_model, self.device_profile or None) if self.device_model else None
        cloud: Cloud | None = None
        if self.cloud == "remote" and self.cloud_url:
            cloud = RemoteCloud(self.cloud_url, self.api_key or None, self.cloud_model)
        elif self.cloud == "local" and self.local_cloud_model:
            cloud = LocalCloud(self.local_cloud_model, self.local_cloud_profile or None)
        return Setup(device, cloud, self.link)
