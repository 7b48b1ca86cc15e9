"""What every tokenizer here has in common: a table of its tokens' bytes, and a chat template."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from model_runtime.core import Tokenizer
from model_runtime.errors import BadTokenError
from model_runtime.fingerprints import template_fingerprint, tokenizer_fingerprint
from model_runtime.templates import ChatTemplate
from model_runtime.tools.syntax import HERMES

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from model_runtime.core import Message
    from model_runtime.templates import Segment
    from model_runtime.thinking import ThinkingTags
    from model_runtime.tools.spec import Tool
    from model_runtime.tools.syntax import ToolSyntax


class VocabularyTokenizer(Tokenizer):
    """Its kinds say how a text is cut into tokens."""

    def __init__(
        self,
        pieces: Sequence[bytes],
        *,
        specials: Mapping[int, str],
        eos: Collection[int],
        template: str | None,
        bos_text: str,
        eos_text: str,
    ) -> None:
        """`pieces`: each token's bytes, empty for special ones; `specials`: the texts of those, by id. Raises
        TemplateError where the template does not compile."""
        self._pieces = pieces
        self._eos = frozenset(eos)
        self._template = ChatTemplate(template, bos=bos_text, eos=eos_text, specials=[*filter(None, specials.values())])
        self._template_fingerprint = template_fingerprint(template)
        self._fingerprint = tokenizer_fingerprint(
            (specials[token].encode(), True) if token in specials else (piece, False)
            for token, piece in enumerate(pieces)
        )

    @property
    def vocabulary_size(self) -> int:
        return len(self._pieces)

    @property
    def eos_ids(self) -> frozenset[int]:
        return self._eos

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    @property
    def template_fingerprint(self) -> str:
        return self._template_fingerprint

    @property
    def thinking(self) -> ThinkingTags | None:
        return self._template.thinking

    @property
    def tool_syntax(self) -> ToolSyntax:
        return self._template.tool_syntax or HERMES

    def token_bytes(self, token: int) -> bytes:
        if not 0 <= token < len(self._pieces):
            raise BadTokenError(f"token id {token} is outside the vocabulary: ids go from 0 to {len(self._pieces) - 1}")
        return self._pieces[token]

    def render_chat(
        self, messages: Sequence[Message], *, add_generation_prompt: bool = True, tools: Sequence[Tool] = ()
    ) -> list[int]:
        segments = self._template.render(messages, add_generation_prompt=add_generation_prompt, tools=tools)
        return [token for segment in segments for token in self._encode_segment(segment)]

    @abstractmethod
    def _encode_segment(self, segment: Segment) -> list[int]:
        """As the model saw it in training."""
