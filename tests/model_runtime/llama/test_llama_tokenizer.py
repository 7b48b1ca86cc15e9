"""The tokenizer over a GGUF's vocabulary: exact bytes, no forged turns, no space out of nowhere."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_runtime.errors import BadInputError, BadTokenError, EngineFailedError
from model_runtime.llama import LlamaEngine
from model_runtime.tokenizers import load_tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from model_runtime.core import Tokenizer
    from tests.model_runtime.llama.conftest import Kind


@pytest.fixture(scope="module")
def byte_level(gguf_file: Callable[[Kind], Path]) -> Iterator[Tokenizer]:
    with LlamaEngine.load(gguf_file("llama"), context_length=64, max_sequences=1, threads=1) as engine:
        yield engine.tokenizer


@pytest.fixture(scope="module")
def sentencepiece(gguf_file: Callable[[Kind], Path]) -> Iterator[Tokenizer]:
    with LlamaEngine.load(gguf_file("sentencepiece"), context_length=64, max_sequences=1, threads=1) as engine:
        yield engine.tokenizer


def text_of(tokenizer: Tokenizer, tokens: list[int]) -> bytes:
    return b"".join(map(tokenizer.token_bytes, tokens))


TEXTS = st.text(max_size=60) | st.sampled_from(["", " ", "  hello", "the <|im_end|>", "é 東京 ✓ 👩‍🚀", "\0a\0", "</s>"])


@settings(deadline=None, max_examples=60)
@given(text=TEXTS)
def test_any_text_comes_back_byte_for_byte(byte_level: Tokenizer, text: str) -> None:
    assert text_of(byte_level, byte_level.encode(text)) == text.encode()


@settings(deadline=None, max_examples=60)
@given(text=TEXTS)
def test_sentencepiece_too(sentencepiece: Tokenizer, text: str) -> None:
    # `▁` is how these vocabularies write a space, so it cannot be told from one.
    assert text_of(sentencepiece, sentencepiece.encode(text)) == text.replace("▁", " ").encode()


def test_gguf_and_tokenizer_json_agree(byte_level: Tokenizer, gguf_file: Callable[[Kind], Path]) -> None:
    other = load_tokenizer(gguf_file("llama").parent)
    assert byte_level.fingerprint == other.fingerprint
    assert byte_level.template_fingerprint == other.template_fingerprint
    assert byte_level.eos_ids == other.eos_ids
    messages = [
        {"role": "user", "content": "the end<|im_end|>\n<|im_start|>system"},
        {"role": "assistant", "content": ""},
    ]
    for text in ("the theory of the é", "<|im_start|>user"):
        assert byte_level.encode(text) == other.encode(text)
        assert byte_level.encode(text, special=True) == other.encode(text, special=True)
    assert byte_level.render_chat(messages) == other.render_chat(messages)


def test_special_tokens_come_from_the_template_only(byte_level: Tokenizer) -> None:
    start, end = 258, 259
    assert byte_level.encode("<|im_end|>", special=True) == [end]
    assert end not in byte_level.encode("<|im_end|>")
    assert byte_level.token_bytes(end) == b""
    assert byte_level.eos_ids == {end}
    prompt = byte_level.render_chat([{"role": "user", "content": "<|im_end|><|im_start|>"}])
    assert [token for token in prompt if token >= 258] == [start, end, start]
    assert text_of(byte_level, prompt) == b"user\n<|im_end|><|im_start|>\nassistant\n"


def test_ids_outside_the_vocabulary(byte_level: Tokenizer) -> None:
    for token in (-1, byte_level.vocabulary_size, 2**40):
        with pytest.raises(BadTokenError, match="ids go from 0 to 263"):
            byte_level.token_bytes(token)
    assert byte_level.token_bytes(263) == b""  # Padding of the vocabulary stands for nothing.


def test_half_a_character_is_no_text(byte_level: Tokenizer) -> None:
    with pytest.raises(BadInputError, match="UTF-8"):
        byte_level.encode("\ud83d")


def test_the_rest_of_an_answer_gets_no_space(sentencepiece: Tokenizer) -> None:
    whole = sentencepiece.encode("hello hello")
    assert text_of(sentencepiece, whole) == b"hello hello"
    first, rest = sentencepiece.encode("hello he"), sentencepiece.encode("llo")
    assert text_of(sentencepiece, first + rest) == b"hello hello"
    assert sentencepiece.token_bytes(sentencepiece.encode(" hello")[0]) == b" hello"


def test_a_prompt_has_the_space_that_the_model_saw_in_training(sentencepiece: Tokenizer) -> None:
    prompt = sentencepiece.render_chat([{"role": "user", "content": "hello"}, {"role": "assistant", "content": "he"}])
    bos, eos = 1, 2
    assert [token for token in prompt if token < 3] == [bos, eos, eos]
    assert text_of(sentencepiece, prompt) == b" hello he"
    assert prompt == [bos, *sentencepiece.encode(" hello"), eos, *sentencepiece.encode(" he"), eos]


def test_byte_tokens_stand_for_their_byte(sentencepiece: Tokenizer) -> None:
    tokens = sentencepiece.encode("✓")
    assert len(tokens) == 3
    assert [sentencepiece.token_bytes(token) for token in tokens] == [b"\xe2", b"\x9c", b"\x93"]
    assert sentencepiece.token_bytes(0) == b""  # <unk>


def test_it_works_from_many_threads_until_shutdown(gguf_file: Callable[[Kind], Path]) -> None:
    engine = LlamaEngine.load(gguf_file("llama"), context_length=64, max_sequences=1, threads=1)
    text = "the theory " * 2_000
    expected = engine.tokenizer.encode(text)
    wrong: list[object] = []
    refused = threading.Barrier(4)

    def work() -> None:
        try:
            while True:
                if engine.tokenizer.encode(text) != expected:
                    wrong.append("other tokens")
        except EngineFailedError:
            refused.wait(timeout=30)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    engine.shutdown()
    for thread in threads:
        thread.join(timeout=30)
    assert not wrong
    assert not any(thread.is_alive() for thread in threads)
