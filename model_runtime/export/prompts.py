"""The texts that an export is calibrated and measured with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from model_runtime.errors import BadInputError

if TYPE_CHECKING:
    from pathlib import Path

    from model_runtime.core import Tokenizer


class _Line(msgspec.Struct):
    prompt: str


def read_prompts(path: Path, tokenizer: Tokenizer) -> list[list[int]]:
    """A JSON Lines file of {"prompt": "..."}, or a text file of one prompt. Each becomes a user's message where the
    model has a chat template. Raises BadInputError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(f'{path} cannot be read: {error}; give a .txt file or .jsonl of {{"prompt": …}}') from error
    if path.suffix != ".jsonl":
        contents = [text]
    else:
        contents = []
        for number, line in enumerate(text.splitlines(), 1):
            try:
                contents.append(msgspec.json.decode(line, type=_Line).prompt)
            except msgspec.DecodeError as error:
                raise BadInputError(f'{path}, line {number}, is not {{"prompt": "..."}}: {error}') from error
    prompts = [tokenizer.render_chat([{"role": "user", "content": each}]) for each in contents if each.strip()]
    if not prompts:
        raise BadInputError(f"{path} holds no prompt")
    return prompts
