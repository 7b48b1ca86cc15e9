"""Digests by which two sides find out that they speak of the same tokens and the same prompt.

They are computed from what the tokens mean, not from the files they came in, so a `tokenizer.json` and the GGUF made
from it agree.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# Tokens that GGUF converters store as control tokens although the tokenizer does not flag them as special.
_LOOKS_SPECIAL = re.compile(r"<\|.*\|>|<｜.*｜>|<unused.*>|<pad>|<mask>|<2mass>|\[@BOS@\]", re.DOTALL)


def looks_special(text: str) -> bool:
    """Whether an *added* token that is not flagged as special counts as special all the same.

    `<|im_end|>` does, `<think>` does not. The rule is the one of llama.cpp's converter, so that both file formats of
    a model give the same flags.
    """
    return _LOOKS_SPECIAL.fullmatch(text) is not None


def tokenizer_fingerprint(entries: Iterable[tuple[bytes, bool]]) -> str:
    """The fingerprint of a vocabulary: a hex digest over its tokens in the order of their ids.

    Each entry is (bytes, special): the bytes that the token adds to the text and False, or the UTF-8 of its name and
    True for a special token (control and unknown tokens; see `looks_special`). An id that stands for no token, as
    where a vocabulary is padded to a round number, is `(b"", False)`; such ids at the end change nothing.
    """
    digest = hashlib.sha256(b"pd tokenizer 1\0")
    gap = 0
    for data, special in entries:
        if not data and not special:
            gap += 1
            continue
        for _ in range(gap):
            digest.update(b"\0\0\0\0\0")
        gap = 0
        digest.update(bytes([special]) + len(data).to_bytes(4, "little") + data)
    return digest.hexdigest()


def template_fingerprint(source: str | None) -> str:
    """The fingerprint of a chat template's text; None (the model has none) has a fixed fingerprint of its own.

    What Jinja drops when it reads a template is dropped here too: one newline at the end, and how lines end.
    """
    if source is None:
        return hashlib.sha256(b"pd template 1\0none").hexdigest()
    text = source.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n")
    return hashlib.sha256(b"pd template 1\0text\0" + text.encode()).hexdigest()
