"""Settings of a server process: a flag beats the environment, which beats the TOML file. The flags are the fields."""

from __future__ import annotations

import argparse
import os
import tomllib
import typing
from collections.abc import Collection
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

SettingsT = TypeVar("SettingsT", bound="ServerSettings")


class SettingsError(Exception):
    """The settings are not usable: the message names each field, what is wrong with it and what was expected."""


class ServerSettings(BaseSettings):
    """Base of a server's settings. Each field's description is its flag's help; `model_config` names the prefix of the
    variables."""

    #: The command whose `--help` lists the settings.
    command: ClassVar[str]

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


def load(settings: type[SettingsT], file: Path | None, flags: dict[str, Any]) -> SettingsT:
    """Settings from flags, the environment and `file`. Raises SettingsError."""
    _refuse_unknown_variables(settings)
    if file is not None and not file.is_file():
        raise SettingsError(f"no configuration file at {file}")

    class FromFile(settings):  # type: ignore[valid-type, misc]
        model_config = SettingsConfigDict(toml_file=file)

    try:
        loaded: SettingsT = FromFile(**flags)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{file} is not valid TOML: {error}") from None
    except ValidationError as error:
        # `input` is left out of the text: it may be a secret.
        lines = (
            f"{'.'.join(map(str, item['loc'])) or 'settings'}: {item['msg']}"
            for item in error.errors(include_input=False, include_url=False)
        )
        raise SettingsError("\n".join(lines)) from None
    return loaded


def add_flags(parser: argparse.ArgumentParser, settings: type[ServerSettings], *, but: Collection[str] = ()) -> None:
    """A flag for every field, and `--config FILE`; none for the fields in `but`."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file with settings")
    for name, field in settings.model_fields.items():
        if name in but:
            continue
        flag, text = f"--{name.replace('_', '-')}", f"{field.description}{_default_text(field)}".replace("%", "%%")
        if field.annotation is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=text)
        else:
            choices = _choices(field.annotation)
            parser.add_argument(flag, choices=choices, metavar=None if choices else _metavar(name, field), help=text)


def flags_given(given: argparse.Namespace, settings: type[ServerSettings]) -> dict[str, Any]:
    """What was said on the command line, by field."""
    return {name: value for name in settings.model_fields if (value := getattr(given, name, None)) is not None}


def _metavar(name: str, field: FieldInfo) -> str:
    if name.endswith("_ms"):
        return "MS"
    if _is_table(field.annotation):
        return "NAME=VALUE,…"
    return "N" if "int" in str(field.annotation) else name.upper()


def _default_text(field: FieldInfo) -> str:
    if field.is_required() or field.default in (None, (), {}, "") or isinstance(field.default, bool):
        return ""
    return f" (default {','.join(field.default) if isinstance(field.default, tuple) else field.default})"


def _choices(annotation: Any) -> tuple[str, ...] | None:
    """Of a Literal, or of a Literal or None."""
    optional = () if _is_table(annotation) else typing.get_args(annotation)
    for part in (annotation, *optional):
        if typing.get_origin(part) is typing.Literal:
            return typing.get_args(part)
    return None


def _is_table(annotation: Any) -> bool:
    return typing.get_origin(annotation) is dict


def _refuse_unknown_variables(settings: type[ServerSettings]) -> None:
    prefix = str(settings.model_config["env_prefix"]).upper()
    known = {f"{prefix}{name}".upper() for name in settings.model_fields}
    unknown = sorted(name for name in os.environ if name.upper().startswith(prefix) and name not in known)
    if unknown:
        raise SettingsError(f"unknown environment variables {', '.join(unknown)}; see {settings.command} --help")
