"""What an operator can set. A flag beats the environment (`PD_CLOUD_MAX_GRANT=…`), which beats the TOML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from cloud_service.pool.roles import Role, assign
from cloud_service.refinement.calibration import FILE_NAME
from cloud_service.refinement.factory import Choice
from http_api.settings import ServerSettings, load
from speed_controller.plan_file import read_split_config
from speed_controller.split_config import SplitConfig
from wire_protocol.decoding import MAX_MESSAGE_BYTES

ENVIRONMENT_PREFIX = "PD_CLOUD_"

#: Fields that must not be given as flags, where every user of the machine could read them.
SECRET_FIELDS = frozenset({"rate_limit_store", "upstream_key"})

AtLeastOne = Annotated[int, Field(ge=1)]


class Settings(ServerSettings):
    """The settings of one service process. Times say their unit in the name; sizes are in tokens unless they say."""

    command: ClassVar[str] = "pd-cloud serve"
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

    # Which parts of a prompt matter.
    refine: Choice = Field(
        "auto", description="What scores prompts; auto is the engine's attention where it shows any, else nothing"
    )
    refine_model: str | None = Field(None, description="The scorer model, for refine = model; named as --model is")
    refine_calibration: Path | None = Field(
        None, description=f"What pd-cloud calibrate wrote; by default {FILE_NAME} beside the model"
    )

    # Engine processes on this machine, instead of one engine in this process.
    instances: AtLeastOne | None = Field(
        None, description="Engine processes, each replaced when it dies; by default none, the engine is in this process"
    )
    roles: Annotated[dict[Role, Annotated[int, Field(ge=0)]], NoDecode] = Field(
        {},
        description="What they do: prefill=1,decode=2 begin answers and take them over; the others are mixed, do both",
    )
    rebalance: Literal["off", "auto"] = Field(
        "auto", description="auto: instances go over from prefill to decode or back, as measured times ask for"
    )
    instance_timeout_ms: Annotated[float, Field(gt=0)] = Field(
        30_000.0, description="How long an engine process may say nothing, and a pass may take, before it is replaced"
    )
    restart_limit: AtLeastOne = Field(
        5, description="Crashes of one instance within ten minutes after which it is not replaced any more"
    )

    # Engines elsewhere, instead of one in this process.
    upstream: Literal["off", "openai"] = Field(
        "off", description="openai: work is done by servers with OpenAI's API; `model` is where the tokenizer is"
    )
    upstream_urls: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Their addresses, with commas between: http://host:8000,…"
    )
    upstream_model: str | None = Field(None, description="What they call the model; by default the first they name")
    upstream_key: SecretStr | None = Field(None, description="Bearer key for them")
    upstream_timeout_ms: Annotated[float, Field(gt=0)] = Field(
        60_000.0, description="How long one may say nothing in the middle of an answer, in ms"
    )
    upstream_generations: AtLeastOne = Field(256, description="Generations that one may have at a time")

    # Where it listens and who may come.
    host: str = Field("127.0.0.1", description="Address to listen on; other than loopback needs keys")
    port: Annotated[int, Field(ge=0, le=65_535)] = Field(8080, description="TCP port; 0 takes a free one")
    key_file: Path | None = Field(
        None, description="Who may come, see `pd-cloud keys`; without one the service is open, on loopback only"
    )
    origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Origins of the web pages that may use the service, with commas between; * for any"
    )
    tls_certificate: Path | None = Field(None, description="Certificate chain, as PEM: serves https and wss")
    tls_key: Path | None = Field(None, description="Its private key, as PEM; by default in the same file")

    # What it takes on.
    max_sequences: AtLeastOne = Field(8, description="Generations that share the engine's passes")
    queue_depth: Annotated[int, Field(ge=0)] = Field(16, description="Generations that may wait for one of them")
    pass_tokens: Annotated[int, Field(ge=2)] = Field(
        512, description="Tokens of one pass, prefill and decode together: more is faster, fewer is more even"
    )
    kv_tokens: AtLeastOne | None = Field(
        None, description="Tokens in llama.cpp's KV cache, of all generations; by default four contexts"
    )
    prefix_cache: Literal["off", "key", "shared"] = Field(
        "key", description="Keep KV for prompts that begin alike: of the same key, or (shared) of any"
    )
    kept_sequences: Annotated[int, Field(ge=0)] = Field(
        24, description="Past generations that may be kept for that, beside those that run"
    )
    max_prompt_tokens: AtLeastOne | None = Field(
        None, description="Longest prompt, in tokens; by default the context less one"
    )
    max_grant: AtLeastOne = Field(4096, description="Most output tokens of one generation")
    split_config: Path | None = Field(
        None, description="What pd-plan solve wrote for devices: they may ask for no larger grants than it allows"
    )
    max_generations: AtLeastOne = Field(32, description="Concurrent generations of one key (of one address without)")
    requests_per_minute: AtLeastOne | None = Field(None, description="Generations started per key; by default no limit")
    tokens_per_minute: AtLeastOne | None = Field(
        None, description="Prompt tokens and granted output tokens per key; by default no limit"
    )
    rate_limit_store: SecretStr = Field(
        SecretStr("memory://"),
        description="Where both are counted: memory:// of this process, or redis://… that several share",
    )
    max_message_bytes: Annotated[int, Field(ge=1024, le=MAX_MESSAGE_BYTES)] = Field(
        4 * 2**20, description="Largest message or body, in bytes"
    )

    # Time.
    first_token_deadline_ms: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Reject what cannot have its first token by then, unless the request says; by default never"
    )
    first_token_target_ms: Annotated[float, Field(gt=0)] = Field(
        1000.0, description="First tokens are ordered by this time after arrival, or their deadline if that is sooner"
    )
    assumed_pace_ms: Annotated[float, Field(ge=0)] = Field(
        50.0, description="How far apart a client that does not say shows tokens, in ms; orders later tokens"
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
    traces: Literal["off", "otlp"] = Field(
        "off", description="Send a trace of each generation by OTLP, to where OTEL_EXPORTER_OTLP_ENDPOINT says"
    )
    log_format: Literal["text", "json"] = Field("text", description="One line of text or of JSON for each event")

    @field_validator("providers", "origins", "upstream_urls", mode="before")
    @classmethod
    def _split_at_commas(cls, value: Any) -> Any:
        return [part.strip() for part in value.split(",")] if isinstance(value, str) else value

    @field_validator("split_config")
    @classmethod
    def _split_config_is_usable(cls, path: Path | None) -> Path | None:
        _read_plan(path)
        return path

    @model_validator(mode="after")
    def _a_tls_key_has_a_certificate(self) -> Self:
        if self.tls_key is not None and self.tls_certificate is None:
            raise ValueError("`tls_key` goes with `tls_certificate`, which is not set")
        return self

    @field_validator("roles", mode="before")
    @classmethod
    def _read_roles(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        parts = [part.partition("=") for part in value.split(",") if part.strip()]
        return {name.strip(): count.strip() for name, _, count in parts}

    @model_validator(mode="after")
    def _roles_fit_the_instances(self) -> Self:
        if self.roles and self.instances is None:
            raise ValueError("`roles` are those of `instances`, which is not set")
        if self.instances is not None:
            if self.upstream != "off":
                raise ValueError("`instances` are engines on this machine, `upstream` are engines elsewhere: set one")
            try:
                assign(self.instances, self.roles)
            except ValueError as error:
                raise ValueError(f"`roles`: {error}") from None
        return self

    @model_validator(mode="after")
    def _upstreams_have_addresses(self) -> Self:
        if (self.upstream == "off") != (not self.upstream_urls):
            raise ValueError("`upstream` = openai goes with `upstream_urls`, and neither with nothing")
        for url in self.upstream_urls:
            if not url.startswith(("http://", "https://")):
                raise ValueError("`upstream_urls`: expected http://HOST:PORT or https://…")
        return self

    def read_split_config(self) -> SplitConfig | None:
        """What `split_config` names. Raises ValueError where the file has changed for the worse since the start."""
        return _read_plan(self.split_config)


def load_settings(file: Path | None, flags: dict[str, Any]) -> Settings:
    """Settings from flags, the environment and `file`. Raises SettingsError."""
    return load(Settings, file, flags)


def _read_plan(path: Path | None) -> SplitConfig | None:
    """Raises ValueError."""
    if path is None:
        return None
    try:
        return read_split_config(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
