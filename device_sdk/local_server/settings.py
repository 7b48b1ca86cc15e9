"""What can be set. A flag beats the environment (`PD_LOCAL_DEVICE=…`), which beats the TOML file."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from device_sdk.local_server.extension import ModeName
from http_api.doors import is_loopback
from http_api.settings import ServerSettings
from model_runtime.errors import LoadError
from model_runtime.profiles import load_profile

ENVIRONMENT_PREFIX = "PD_LOCAL_"

#: The cloud's key must not be a flag, which every user of the machine could read.
SECRET_FIELDS = frozenset({"cloud_key"})

AtLeastOne = Annotated[int, Field(ge=1)]
Names = Annotated[tuple[str, ...], NoDecode]


class LocalSettings(ServerSettings):
    """The settings of one `pd-local serve`. Times say their unit in the name."""

    command: ClassVar[str] = "pd-local serve"
    model_config = SettingsConfigDict(env_prefix=ENVIRONMENT_PREFIX, extra="forbid", frozen=True)

    # The device's model and what runs it.
    device: str = Field(
        description="The device's model: a GGUF file, an ONNX file or folder, or hf://owner/name[/file]"
    )
    model_name: str | None = Field(None, description="Its name for clients; by default the name in the model's files")
    aliases: Names = Field(
        (), description="Other names that clients may ask for, with commas between; * for any at all"
    )
    engine: Literal["auto", "onnx", "llama"] = Field("auto", description="What runs it; auto goes by the file")
    threads: AtLeastOne | None = Field(None, description="CPU threads of a pass; by default what the engine chooses")
    providers: Names = Field(
        ("CPUExecutionProvider",), description="ONNX Runtime's execution providers, with commas between, and no others"
    )
    gpu_layers: int = Field(0, description="Layers that llama.cpp puts on a GPU; negative for all")
    context_length: AtLeastOne | None = Field(None, description="Context, in tokens; by default the model's own")
    emulate: str | None = Field(
        None, description="Stretch passes to a hardware profile (a bundled name or a JSON file); never shortens them"
    )

    # The cloud, and who answers.
    cloud: str | None = Field(None, description="The cloud service, as wss://host[:port]; without one, none is asked")
    cloud_key: SecretStr | None = Field(None, description="Bearer key for it")
    cloud_model: str = Field("", description="The model that it must serve; by default whichever it does")
    mode: ModeName | None = Field(
        None, description="Who answers; by default SPLIT with a cloud, and ONLY_ON_DEVICE without"
    )
    split: Path | None = Field(None, description="What pd-plan solve wrote: settings by the prompt's length")
    pace_ms: Annotated[float, Field(ge=0)] | None = Field(
        None, description="Preferred time between two streamed tokens; 0 for each as it comes; by default as planned"
    )

    # Where it listens and who may come.
    host: str = Field("127.0.0.1", description="Address to listen on; other than loopback needs a key")
    port: Annotated[int, Field(ge=0, le=65_535)] = Field(8090, description="TCP port; 0 takes a free one")
    api_key: SecretStr | None = Field(
        None, description="What clients must send; other users of this machine can read flags, so rather a file"
    )
    api_key_file: Path | None = Field(None, description="A file that holds it")
    allow_open: bool = Field(
        False, description="Listen beyond this machine without a key: whoever can reach it may ask"
    )
    hosts: Names = Field(
        (), description="Names in Host, beside addresses and localhost, that the server goes by; * for any"
    )
    origins: Names = Field((), description="Origins of the web pages that may use it, with commas between; * for any")

    # What it takes on.
    max_generations: AtLeastOne = Field(4, description="Answers at a time; one more is told 429")
    warm_prompts: Annotated[int, Field(ge=0)] = Field(
        4, description="Past prompts whose KV cache the device keeps, for requests that begin alike"
    )
    max_body_bytes: Annotated[int, Field(ge=1024)] = Field(4 * 2**20, description="Largest body, in bytes")
    drain_ms: Annotated[float, Field(ge=0)] = Field(
        5_000.0, description="Time for running answers to finish after SIGTERM, in ms"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level logged")

    @field_validator("aliases", "providers", "hosts", "origins", mode="before")
    @classmethod
    def _split_at_commas(cls, value: Any) -> Any:
        return [part.strip() for part in value.split(",")] if isinstance(value, str) else value

    @field_validator("emulate")
    @classmethod
    def _is_a_profile(cls, value: str | None) -> str | None:
        try:
            if value is not None:
                load_profile(value)
        except LoadError as error:
            raise ValueError(str(error)) from None
        return value

    @model_validator(mode="after")
    def _one_key(self) -> Self:
        if self.api_key is not None and self.api_key_file is not None:
            raise ValueError("give `api_key` or `api_key_file`, not both")
        if self.key == "":
            raise ValueError("the key is empty")
        return self

    @model_validator(mode="after")
    def _is_not_open_unawares(self) -> Self:
        if self.key is None and not self.allow_open and not is_loopback(self.host):
            raise ValueError(
                f"no key is set and {self.host!r} is reachable from other machines: set `api_key_file`, listen on "
                "127.0.0.1, or say `allow_open`"
            )
        return self

    @functools.cached_property
    def key(self) -> str | None:
        """What clients must send; None lets everybody in. Raises ValueError."""
        if self.api_key_file is None:
            return None if self.api_key is None else self.api_key.get_secret_value()
        try:
            return self.api_key_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"cannot read {self.api_key_file}: {error}") from None
