"""Text to token ids and back over a GGUF's own vocabulary."""

from __future__ import annotations

import ctypes
import itertools
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from model_runtime.errors import BadInputError, EngineFailedError
from model_runtime.vocabulary import VocabularyTokenizer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from model_runtime.core import Message
    from model_runtime.llama.model import Model
    from model_runtime.templates import Segment
    from model_runtime.tools.spec import Tool

_NO_TOKEN = -1


class LlamaTokenizer(VocabularyTokenizer):
    """llama.cpp's tokenizer of one model. Safe to use from any thread; what needs the model's memory (`encode`,
    `render_chat`) raises EngineFailedError once the engine is shut down."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._gate = _Gate()
        api, vocabulary = model.library.api, model.vocabulary
        self._api = api
        self._vocabulary = vocabulary
        size = int(api.llama_vocab_n_tokens(vocabulary))
        attributes = [int(api.llama_vocab_get_attr(vocabulary, token)) for token in range(size)]
        special = api.LLAMA_TOKEN_ATTR_CONTROL | api.LLAMA_TOKEN_ATTR_UNKNOWN
        self._special = frozenset(token for token in range(size) if attributes[token] & special)
        names = {token: _name(api, vocabulary, token) for token in self._special}
        super().__init__(
            _pieces(api, vocabulary, size),
            specials=names,
            eos=[token for token in range(size) if api.llama_vocab_is_eog(vocabulary, token)],
            template=model.metadata("tokenizer.chat_template"),
            bos_text=_name(api, vocabulary, api.llama_vocab_bos(vocabulary)),
            eos_text=_name(api, vocabulary, api.llama_vocab_eos(vocabulary)),
        )
        self._space_in_front = _wants_space(model)

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """As in the contract. Raises BadInputError for text that is no Unicode (lone surrogates)."""
        try:
            data = text.encode()
        except UnicodeEncodeError as error:
            raise BadInputError(f"the text cannot be encoded as UTF-8: {error}") from error
        with self._gate.entered():
            return self._encode(data, special)

    def render_chat(
        self, messages: Sequence[Message], *, add_generation_prompt: bool = True, tools: Sequence[Tool] = ()
    ) -> list[int]:
        with self._gate.entered():
            return super().render_chat(messages, add_generation_prompt=add_generation_prompt, tools=tools)

    def close(self) -> None:
        """Wait for other threads to leave, then let none in: the model may be freed afterwards."""
        self._gate.close()

    def _encode(self, data: bytes, special: bool) -> list[int]:
        room = len(data) + 16
        while True:
            tokens = (ctypes.c_int32 * room)()
            count = self._api.llama_tokenize(self._vocabulary, data, len(data), tokens, room, False, special)
            if count >= 0:
                return tokens[:count]
            room = -count

    def _encode_segment(self, segment: Segment) -> list[int]:
        tokens = self._encode(segment.text.encode(), segment.trusted)
        if not (self._space_in_front and segment.trusted):
            return tokens
        # As the model saw it in training: SentencePiece puts a space in front of each text between special tokens.
        result: list[int] = []
        for is_special, group in itertools.groupby(tokens, key=self._special.__contains__):
            run = list(group)
            if not is_special:
                run = self._encode(b" " + b"".join(self._pieces[token] for token in run), False)
            result += run
        return result


def _wants_space(model: Model) -> bool:
    api = model.library.api
    stated = model.metadata("tokenizer.ggml.add_space_prefix")
    if stated is not None:
        return stated == "true"
    return bool(api.llama_vocab_type(model.vocabulary) == api.LLAMA_VOCAB_TYPE_SPM)


def _pieces(api: Any, vocabulary: int, size: int) -> list[bytes]:
    """The bytes of every token; empty for special and unused ones."""
    pieces = []
    buffer = ctypes.create_string_buffer(256)
    for token in range(size):
        count = api.llama_token_to_piece(vocabulary, token, buffer, len(buffer), 0, False)
        if count < 0:
            buffer = ctypes.create_string_buffer(-count)
            count = api.llama_token_to_piece(vocabulary, token, buffer, len(buffer), 0, False)
        pieces.append(buffer.raw[:count])
    return pieces


def _name(api: Any, vocabulary: int, token: int) -> str:
    """A token as the vocabulary writes it, such as `<|im_end|>`; empty for no token."""
    if token == _NO_TOKEN:
        return ""
    return (api.llama_vocab_get_text(vocabulary, token) or b"").decode(errors="replace")


class _Gate:
    """Lets any number of threads in until it is closed; closing waits for those inside."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._closed = False

    @contextmanager
    def entered(self) -> Iterator[None]:
        with self._changed:
            if self._closed:
                raise EngineFailedError("the engine is shut down, and its tokenizer with it: load it again")
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: not self._inside)
