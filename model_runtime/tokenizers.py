"""Tokenizers in the Hugging Face layout: `tokenizer.json`, `tokenizer_config.json` and the files beside them."""

from __future__ import annotations

import copy
import json
import re
import threading
from typing import TYPE_CHECKING, Any

import tokenizers

from model_runtime.errors import BadInputError, ModelFormatError, ModelNotFoundError, TemplateError
from model_runtime.fingerprints import looks_special
from model_runtime.vocabulary import VocabularyTokenizer

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from model_runtime.templates import Segment

#: Special tokens that end a turn in models whose files do not say so.
END_OF_TURN = (
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<|eot|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<｜end▁of▁sentence｜>",
    "</s>",
)

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class HFTokenizer(VocabularyTokenizer):
    """A `tokenizers` model. Safe to use from any thread.

    `encode` adds nothing in front, not even the space that SentencePiece models put before a text: the bytes of the
    ids are the bytes of the text (after the model's own Unicode normalization). `render_chat` gives the ids that
    transformers gives, that space included.
    """

    def __init__(
        self,
        definition: dict[str, Any],
        *,
        eos: Collection[int | str],
        template: str | None,
        bos_text: str = "",
        eos_text: str = "",
        vocabulary_size: int = 0,
    ) -> None:
        """`definition` is the content of a tokenizer.json; `eos` are ids or texts that end an answer.

        `vocabulary_size` is the model's where it is padded beyond the tokenizer's; padded ids stand for no bytes.
        Raises ModelFormatError where the definition is damaged or of a kind whose bytes are not known exactly, and
        TemplateError where the template does not compile.
        """
        definition = _with_flags_of_special_tokens(definition)
        unprefixed = _without_prefix_space(definition)
        self._as_trained = _build(definition)
        self._exact = self._as_trained if unprefixed == definition else _build(unprefixed)
        # Whether special tokens are recognised is a switch on the object, so one thread at a time.
        self._lock = threading.Lock()
        self._added: dict[int, str] = {entry["id"]: entry["content"] for entry in definition["added_tokens"]}
        self._special = {entry["id"] for entry in definition["added_tokens"] if entry["special"]}
        specials = {token: text for token, text in self._added.items() if token in self._special}
        ids = {text: token for token, text in specials.items()}
        ends = (*(ids.get(e) if isinstance(e, str) else e for e in eos), *map(ids.get, END_OF_TURN))
        #: Text of the beginning-of-sequence token; empty where there is none.
        self.bos_text = bos_text
        super().__init__(
            _token_bytes(self._as_trained, definition, self._special, vocabulary_size),
            specials=specials,
            eos=[token for token in ends if token is not None],
            template=template,
            bos_text=bos_text,
            eos_text=eos_text,
        )

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """As the contract says. Raises BadInputError for half a surrogate pair, which is no text."""
        return self._encode(self._exact, text, special)

    def special_text(self, token: int) -> str:
        """The text that `encode(…, special=True)` reads as `token`, if that is a special one; else empty."""
        return self._added[token] if token in self._special else ""

    def _encode_segment(self, segment: Segment) -> list[int]:
        return self._encode(self._as_trained, segment.text, segment.trusted)

    def _encode(self, tokenizer: tokenizers.Tokenizer, text: str, special: bool) -> list[int]:
        with self._lock:
            tokenizer.encode_special_tokens = not special
            try:
                ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
            except TypeError:
                raise BadInputError("the text holds half a surrogate pair, which stands for no character") from None
            return ids


def load_tokenizer(folder: Path) -> HFTokenizer:
    """The tokenizer in a model's folder. Raises ModelNotFoundError, ModelFormatError."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ModelNotFoundError(
            f"no tokenizer.json in {folder}: the model's folder must hold it beside the model "
            "(a tokenizer.model or vocab.txt alone is not enough; export the tokenizer with its fast version)"
        )
    definition = _read_json(path)
    config = _read_json(folder / "tokenizer_config.json")
    model = _read_json(folder / "config.json")
    generation = _read_json(folder / "generation_config.json")
    eos_text = _text(config.get("eos_token"))
    eos: list[int | str] = [eos_text] if eos_text else []
    for source in (model, generation):
        found = source.get("eos_token_id")
        eos += found if isinstance(found, list) else [found] if found is not None else []
    try:
        return HFTokenizer(
            definition,
            eos=eos,
            template=_template(folder, config),
            bos_text=_text(config.get("bos_token")),
            eos_text=eos_text,
            vocabulary_size=int(model.get("vocab_size") or model.get("text_config", {}).get("vocab_size") or 0),
        )
    except (ModelFormatError, TemplateError) as error:
        raise ModelFormatError(f"{path}: {error}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelFormatError(f"{path} or a file beside it is not built as expected: {error!r}") from error


def _template(folder: Path, config: dict[str, Any]) -> str | None:
    """The chat template, from where transformers looks, in its order."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    found = _read_json(folder / "chat_template.json").get("chat_template", config.get("chat_template"))
    if isinstance(found, list):  # several named ones
        named = {entry["name"]: entry["template"] for entry in found}
        found = named.get("default")
    return found if isinstance(found, str) else None


def _read_json(path: Path) -> dict[str, Any]:
    """The object in a file; empty where there is no file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ModelFormatError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise ModelFormatError(f"{path} must hold a JSON object, not a {type(value).__name__}")
    return value


def _text(token: object) -> str:
    """A token's text in tokenizer_config.json: a string, or an object with its text as `content`."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else ""


def _build(definition: dict[str, Any]) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_str(json.dumps(definition))
    except Exception as error:  # the library raises bare Exception
        raise ModelFormatError(f"this is no tokenizer definition: {error}") from error


def _with_flags_of_special_tokens(definition: dict[str, Any]) -> dict[str, Any]:
    definition = definition | {"truncation": None, "padding": None}
    definition["added_tokens"] = [
        # Found in the raw text only: what a message must not contain is then known before normalization.
        entry | {"special": True, "normalized": False} if entry["special"] or looks_special(entry["content"]) else entry
        for entry in definition.get("added_tokens") or []
    ]
    return definition


def _without_prefix_space(definition: dict[str, Any]) -> dict[str, Any]:
    definition = copy.copy(definition)
    for field, list_field in (("normalizer", "normalizers"), ("pre_tokenizer", "pretokenizers")):
        part = definition.get(field)
        if part is not None and part["type"] == "Sequence":
            parts = [_unprefixed(part) for part in part[list_field]]
            definition[field] = part | {list_field: [part for part in parts if part is not None]}
        elif part is not None:
            definition[field] = _unprefixed(part)
    return definition


def _unprefixed(part: dict[str, Any]) -> dict[str, Any] | None:
    match part["type"]:
        case "Prepend":
            return None
        case "Metaspace":
            # Files from before `prepend_scheme` have `add_prefix_space` in its place.
            return {key: value for key, value in part.items() if key != "add_prefix_space"} | {
                "prepend_scheme": "never"
            }
        case "ByteLevel":
            return part | {"add_prefix_space": False}
        case _:
            return part


def _token_bytes(
    tokenizer: tokenizers.Tokenizer, definition: dict[str, Any], special: set[int], vocabulary_size: int
) -> list[bytes]:
    to_bytes = _decoder(definition.get("decoder"))
    added = {entry["id"]: entry["content"] for entry in definition["added_tokens"]}
    vocabulary: dict[str, int] = tokenizer.get_vocab(with_added_tokens=True)
    table = [b""] * max([vocabulary_size, *(token + 1 for token in vocabulary.values())])
    for text, token in vocabulary.items():
        table[token] = b"" if token in special else to_bytes(text, added.get(token) == text)
    return table


def _decoder(decoder: dict[str, Any] | None) -> Callable[[str, bool], bytes]:
    """From a token's text in the vocabulary, and whether it is an added token, to its bytes."""
    if decoder is None:
        raise ModelFormatError("it has no decoder, so what bytes its tokens stand for is not known")
    parts = decoder["decoders"] if decoder["type"] == "Sequence" else [decoder]
    kinds = {part["type"] for part in parts}
    if kinds == {"ByteLevel"}:
        return lambda text, added: text.encode() if added else _from_byte_level(text)
    spaces = any(_replaces_spaces(part) for part in parts)
    if spaces and kinds <= {"Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"}:
        fallback = "ByteFallback" in kinds
        return lambda text, _: _from_sentencepiece(text, fallback)
    raise ModelFormatError(
        f"its decoder ({', '.join(sorted(kinds))}) does not say exactly which bytes a token stands for; "
        "byte-level BPE and SentencePiece tokenizers do"
    )


def _replaces_spaces(part: dict[str, Any]) -> bool:
    match part:
        case {"type": "Metaspace", "replacement": "▁"}:
            return True
        case {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}:
            return True
        case _:
            return False


def _from_sentencepiece(text: str, byte_fallback: bool) -> bytes:
    byte = _BYTE_TOKEN.fullmatch(text) if byte_fallback else None
    return bytes.fromhex(byte[1]) if byte else text.replace("▁", " ").encode()


def _from_byte_level(text: str) -> bytes:
    try:
        return bytes(_BYTE_LEVEL[character] for character in text)
    except KeyError:  # no piece of byte-level BPE: the library, too, takes it as it is
        return text.encode()


def _byte_level_alphabet() -> dict[str, int]:
    """The characters that byte-level BPE writes for bytes: printable Latin-1 as it is, the others from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [value for value in range(256) if value not in printable]
    return {chr(value): value for value in printable} | {chr(256 + n): value for n, value in enumerate(others)}


_BYTE_LEVEL = _byte_level_alphabet()
