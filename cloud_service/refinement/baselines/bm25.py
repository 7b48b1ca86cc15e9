"""Words that the question and a sentence share, weighted by how rare they are (Robertson and Zaragoza, 2009)."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

from cloud_service.refinement.attention import asking_rows
from cloud_service.refinement.baselines.by_unit import parts, spread
from cloud_service.refinement.contract import NO_NEEDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloud_service.refinement.contract import Evidence, Needs, Prompt
    from model_runtime.core import FloatArray

#: Scripts that are written without spaces: two neighbouring characters stand for a word.
_UNSPACED = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+"
)
_WORD = re.compile(r"\w+")


class BM25:
    """The question is the last line of the last message, as far as it is protected; a window before it, that the client
    protects for another reason, asks nothing."""

    name = "bm25"

    @property
    def needs(self) -> Needs:
        return NO_NEEDS

    def score(self, prompt: Prompt, evidence: Evidence) -> FloatArray:
        """As the contract says. Raises ImportError where `bm25s` is not installed (`pd-device[cloud]` has it)."""
        import bm25s

        laid, protected, found = parts(prompt)
        length = len(prompt.tokens)
        start = protected[-1][0] if protected and protected[-1][1] == length else 0
        asking = [token for token in asking_rows(prompt.pieces, length) if token >= start]
        question = list(words(b"".join(prompt.pieces[token] for token in asking).decode(errors="replace")))
        corpus = [list(words(laid.between(*unit))) for unit in found]
        if not question or not any(corpus):
            return spread(prompt, (), ())
        index = bm25s.BM25()
        index.index(corpus, show_progress=False)
        return spread(prompt, found, index.get_scores(question))


def words(text: str) -> Iterator[str]:
    """Lower-case words without a stemmer, which would be one language's; pairs of characters where none are spaced."""
    for match in _WORD.finditer(unicodedata.normalize("NFKC", text).casefold()):
        word, position = match.group(), 0
        for run in _UNSPACED.finditer(word):
            yield from filter(None, (word[position : run.start()],))
            characters = run.group()
            yield from (characters[at : at + 2] for at in range(max(1, len(characters) - 1)))
            position = run.end()
        yield from filter(None, (word[position:],))
