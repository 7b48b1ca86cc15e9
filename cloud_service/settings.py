"""What an operator can set. A flag beats the environment (`PD_CLOUD_MAX_GRANT=…`), which beats the TOML file."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from wire_protocol.decoding import MAX_MESSAGE_BYTES

ENVIRONMENT_PREFIX = "PD_CLOUD_"

#: Fields that must not be given as flags, where every user of the machine could read them.
SECRET_FIELDS = frozenset({"keys"})

AtLeastOne = Annotated[int, Field(ge=1)]


class SettingsError(Exception):
    """The settings are not usable: the message names each field, what is wrong with it and what was expected."""


class Settings(BaseSettings):
    """The settings of one service process. Times say their unit in the name; sizes are in tokens unless they say."""

    model_config = SettingsConfigDict(env_prefix=ENVIRONMENT_PREFIX, extra="forbid", frozen=True)

    # The model and what runs it.
    model: str = Field(description="The model to serve: a GGUF file, an ONNX file or folder, or hf://owner/name[/file]")
    model_name: str | None = Field(None, description="Its name for clients; by default the name in the model's files")
    engine: Literal["auto", "onnx", "llama"] = Field("auto", description="What runs it; auto goes by the file")
    threads: AtLeastOne | None = Field(None, description="CPU threads of a pass; by default what the engine chooses")
    providers: Annotated[tuple[str, ...], NoDecode] = Field(
        ("CPUExecutionProvider",), description="ONNX Runtime's execution providers, with commas between, and no others"
    )
    gpu_layers: int = Field(0, description="Layers that llama.cpp puts on a GPU; negative for all")
    context_length: AtLeastOne | None = Field(None, description="Context, in tokens; by default the model's own")
    emulate: str | None = Field(
        None, description="Stretch passes to a hardware profile (a bundled name or a JSON file); never shortens them"
    )

    # Where it listens and who may come.
    host: str = Field("127.0.0.1", description="Address to listen on; other than loopback needs keys")
    port: Annotated[int, Field(ge=0, le=65_535)] = Field(8080, description="TCP port; 0 takes a free one")
    keys: dict[str, SecretStr] = Field(
        {}, description="Bearer keys by the name that logs and metrics show; none leaves the service open on loopback"
    )

    # What it takes on.
    max_sequences: AtLeastOne = Field(8, description="Generations that share the engine's passes")
    queue_depth: Annotated[int, Field(ge=0)] = Field(16, description="Generations that may wait for one of them")
    pass_tokens: Annotated[int, Field(ge=2)] = Field(
        512, description="Tokens of one pass, prefill and decode together: more is faster, fewer is more even"
    )
    max_prompt_tokens: AtLeastOne | None = Field(
        None, description="Longest prompt, in tokens; by default the context less one"
    )
    max_grant: AtLeastOne = Field(4096, description="Most output tokens of one generation")
    max_generations: AtLeastOne = Field(32, description="Concurrent generations of one key (of one address without)")
    requests_per_minute: AtLeastOne | None = Field(None, description="Generations started per key; by default no limit")
    max_message_bytes: Annotated[int, Field(ge=1024, le=MAX_MESSAGE_BYTES)] = Field(
        4 * 2**20, description="Largest message or body, in bytes"
    )

    # Time.
    first_token_deadline_ms: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Reject what cannot have its first token by then, unless the request says; by default never"
    )
    linger_ms: Annotated[float, Field(ge=0)] = Field(
        300.0, description="How long a used-up grant is held open for an `extend`, in ms; costs no compute"
    )
    hello_timeout_ms: Annotated[float, Field(gt=0)] = Field(10_000.0, description="Time for a client's `hello`, in ms")
    send_queue_messages: AtLeastOne = Field(
        1024, description="Messages that may wait for a client that does not read before it is dropped"
    )
    send_timeout_ms: Annotated[float, Field(gt=0)] = Field(
        10_000.0, description="How long a client may read nothing while messages wait for it, in ms"
    )
    drain_ms: Annotated[float, Field(ge=0)] = Field(
        20_000.0, description="Time for running generations to finish after SIGTERM, in ms"
    )

    # What it says.
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level logged")
    log_format: Literal["text", "json"] = Field("text", description="One line of text or of JSON for each event")

    @field_validator("providers", mode="before")
    @classmethod
    def _split_at_commas(cls, value: Any) -> Any:
        return [part.strip() for part in value.split(",")] if isinstance(value, str) else value

    @field_validator("keys")
    @classmethod
    def _keys_are_usable(cls, keys: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, key in keys.items():
            if len(key.get_secret_value()) < 16:
                raise ValueError(f"the key of {name!r} is shorter than 16 characters and could be guessed")
        return keys

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


def load_settings(file: Path | None, flags: dict[str, Any]) -> Settings:
    """Settings from flags, the environment and `file`. Raises SettingsError."""
    _refuse_unknown_variables()
    if file is not None and not file.is_file():
        raise SettingsError(f"no configuration file at {file}")

    class FromFile(Settings):
        model_config = SettingsConfigDict(toml_file=file)

    try:
        return FromFile(**flags)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{file} is not valid TOML: {error}") from None
    except ValidationError as error:
        # `input` is left out of the text: it may be a key.
        lines = (
            f"{'.'.join(map(str, item['loc'])) or 'settings'}: {item['msg']}"
            for item in error.errors(include_input=False, include_url=False)
        )
        raise SettingsError("\n".join(lines)) from None


def _refuse_unknown_variables() -> None:
    known = {f"{ENVIRONMENT_PREFIX}{name}".upper() for name in Settings.model_fields}
    unknown = sorted(name for name in os.environ if name.upper().startswith(ENVIRONMENT_PREFIX) and name not in known)
    if unknown:
        raise SettingsError(f"unknown environment variables {', '.join(unknown)}; see pd-cloud serve --help")
