"""Models for answers in virtual time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Model = Callable[[Sequence[int]], int | None]


def script(length: int, salt: int = 0) -> Model:
    """A model: its answer is `length` tokens, each a function of all before it."""

    def next_token(output: Sequence[int]) -> int | None:
        if len(output) >= length:
            return None
        last = output[-1] if output else salt
        return (37 * len(output) + 7 * last + salt) % 90 + 33

    return next_token


def whole(model: Model) -> tuple[int, ...]:
    output: list[int] = []
    while (token := model(output)) is not None:
        output.append(token)
    return tuple(output)
