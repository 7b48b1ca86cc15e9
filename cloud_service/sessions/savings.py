"""What devices spared the service: the tokens of an answer that it did not have to give. Pure."""

from __future__ import annotations


class Savings:
    """The generations of one connection."""

    def __init__(self, *, remember: int = 1_024) -> None:
        """`remember`: for how many generations, the last to begin."""
        self._given: dict[str, int] = {}
        self._remember = remember

    def gave(self, generation: str, end: int) -> None:
        """The service has given output tokens up to index `end`."""
        self._given[generation] = end
        if len(self._given) > self._remember:
            del self._given[next(iter(self._given))]

    def claim(self, generation: str, answer_tokens: int) -> int:
        """The whole answer has so many tokens: how many of them the service was spared. Counted once; 0 where it gave
        none, for then it spared nothing but the whole work."""
        given = self._given.pop(generation, None)
        return 0 if given is None else max(0, answer_tokens - given)
