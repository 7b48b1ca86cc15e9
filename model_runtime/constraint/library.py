"""llguidance, where it is installed: constraints to its grammars, tokenizers to its own."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

from model_runtime.constraint.spec import Constraint, Grammar, JsonSchema, Regex
from model_runtime.errors import BadInputError, ConstraintError, ConstraintUnavailableError

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

    from model_runtime.core import Tokenizer

#: Between JSON's tokens: nothing, a space, or a line break with its indentation. Without a bound, a model that has
#: never learnt where to stop would fill an answer with blanks.
WHITESPACE = r"(\x20|\n\x20{0,24})?"

#: Constraints of one tokenizer that are kept compiled: apps use few, again and again.
_KEPT = 64


def available() -> bool:
    """Whether constraints can be held in this installation."""
    return importlib.util.find_spec("llguidance") is not None


def require() -> None:
    """Raises ConstraintUnavailableError."""
    if not available():
        raise ConstraintUnavailableError(
            "a constrained answer needs llguidance, which is not installed: pip install 'pd-device[structured]'"
        )


def new_matcher(constraint: Constraint, tokenizer: LLTokenizer) -> LLMatcher:
    """At the beginning of an answer. Raises ConstraintError, naming what cannot be held; ConstraintUnavailableError."""
    require()
    from llguidance import LLMatcher, LLParserLimits

    grammar = _grammar(constraint)
    # An error's text would else quote the answer so far.
    limits = LLParserLimits(verbose_errors=False)
    problem, messages = LLMatcher.validate_grammar_with_warnings(grammar, tokenizer, limits=limits)
    if problem:
        raise ConstraintError(f"the {_NAMES[constraint.kind]} cannot be used: {_first_line(messages)}")
    matcher = LLMatcher(tokenizer, grammar, log_level=0, limits=limits)
    if matcher.is_error():
        raise ConstraintError(f"the {_NAMES[constraint.kind]} cannot be used: {_first_line([matcher.get_error()])}")
    return matcher


_NAMES = {"json_schema": "JSON schema", "regex": "regex", "grammar": "grammar"}


def _grammar(constraint: Constraint) -> str:
    from llguidance import LLMatcher, grammar_from

    match constraint:
        case JsonSchema(schema=bool()):
            return LLMatcher.grammar_from_lark(f"start: %json {constraint.text}")
        case JsonSchema():
            return LLMatcher.grammar_from_json_schema(constraint.text, {"whitespace_pattern": WHITESPACE})
        case Regex(pattern=pattern):
            return LLMatcher.grammar_from_regex(pattern)
        case Grammar(text=text):
            try:
                return grammar_from("grammar", text)
            except Exception as error:  # the library's reader of GBNF raises bare ones
                raise ConstraintError(f"the grammar cannot be read as Lark or GBNF: {error}") from None


def _first_line(messages: Sequence[str]) -> str:
    """What is wrong, without the library's picture of where."""
    lines = [line.strip() for line in "\n".join(messages).splitlines()]
    reasons = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return " ".join([*lines[:1], *reasons])[:500]


class _OfTokenizer:
    """Special tokens get names that no grammar knows: they are never part of a constrained answer."""

    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer) -> None:
        size = range(tokenizer.vocabulary_size)
        pieces = [tokenizer.token_bytes(token) for token in size]
        # The table below must not keep the tokenizer that it is kept by.
        self._tokenizer = ref(tokenizer)
        self.special_token_ids = [token for token in size if not pieces[token]]
        self.tokens = [piece or f"<|pd {token}|>".encode() for token, piece in enumerate(pieces)]
        self.eos_token_id = min(tokenizer.eos_ids)

    def __call__(self, text: Any) -> list[int]:
        tokenizer = self._tokenizer()
        if tokenizer is None:
            return []
        return tokenizer.encode(text.decode(errors="replace") if isinstance(text, bytes) else text)


class _OfBytes:
    """A vocabulary of single bytes: whatever the tokens were, text is made of these."""

    eos_token_id, bos_token_id = 256, None
    tokens = (*(bytes([value]) for value in range(256)), b"<|pd end|>")
    special_token_ids = (256,)

    def __call__(self, text: Any) -> list[int]:
        return list(text if isinstance(text, bytes) else text.encode())


class Vocabularies:
    """llguidance's view of each tokenizer, which takes up to a second to make, and the constraints last used over it:
    kept as long as the tokenizer is. Safe to use from any thread."""

    def __init__(self) -> None:
        self._made: WeakKeyDictionary[Tokenizer, _Vocabulary] = WeakKeyDictionary()
        self._bytes: LLTokenizer | None = None
        self._lock = threading.Lock()

    def matcher(self, constraint: Constraint, tokenizer: Tokenizer) -> LLMatcher:
        """At the beginning of an answer: to be copied, not to be used. Raises ConstraintUnavailableError,
        ConstraintError (also for a tokenizer that cannot end an answer)."""
        if not tokenizer.eos_ids:
            raise ConstraintError("the model's tokenizer has no token that ends an answer, so none can be constrained")
        key = (constraint.kind, constraint.text)
        with self._lock:
            vocabulary = self._made.get(tokenizer)
            if vocabulary is None:
                made = _build(_OfTokenizer(tokenizer), sorted(tokenizer.eos_ids))
                vocabulary = self._made[tokenizer] = _Vocabulary(made)
            known = vocabulary.matchers.get(key)
        if known is None:
            # What names tokens by number, and so means something else to every tokenizer, is refused over bytes.
            new_matcher(constraint, self.of_bytes())
            known = new_matcher(constraint, vocabulary.tokenizer)
        with self._lock:
            vocabulary.matchers.pop(key, None)
            vocabulary.matchers[key] = known  # the newest last
            if len(vocabulary.matchers) > _KEPT:
                del vocabulary.matchers[next(iter(vocabulary.matchers))]
        return known

    def of_bytes(self) -> LLTokenizer:
        """Raises ConstraintUnavailableError."""
        with self._lock:
            if self._bytes is None:
                self._bytes = _build(_OfBytes(), [_OfBytes.eos_token_id])
            return self._bytes


@dataclass(slots=True)
class _Vocabulary:
    tokenizer: LLTokenizer
    #: By kind and text.
    matchers: dict[tuple[str, str], LLMatcher] = field(default_factory=dict)


def _build(vocabulary: _OfTokenizer | _OfBytes, eos: list[int]) -> LLTokenizer:
    require()
    from llguidance import LLTokenizer, TokenizerWrapper

    try:
        return LLTokenizer(TokenizerWrapper(vocabulary), n_vocab=len(vocabulary.tokens), eos_token=eos)
    except ValueError as error:
        raise BadInputError(f"constraints cannot be held over this tokenizer: {error}") from error


VOCABULARIES = Vocabularies()
