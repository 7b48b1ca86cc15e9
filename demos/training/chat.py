"""The two chat formats of the bundled models, as text pieces for training and as Jinja templates for use."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """`{role}` opens a turn; `end` closes it; `separator` stands between turns."""

    opening: str
    end: str
    separator: str
    padding: str
    roles: tuple[str, str, str]
    template: str

    @property
    def specials(self) -> list[str]:
        marks = [self.padding, self.end]
        if "{role}" in self.opening.split("|>")[0]:
            marks += [self.opening.format(role=role).rstrip("\n") for role in self.roles]
        else:
            marks.append(self.opening.split("{")[0])
        return marks

    def open(self, role: str) -> str:
        return self.opening.format(role=role)


CHATML = ChatFormat(
    opening="<|im_start|>{role}\n",
    end="<|im_end|>",
    separator="\n",
    padding="<|endoftext|>",
    roles=("system", "user", "assistant"),
    template=(
        "{% for message in messages %}"
        "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    ),
)

# Another family's habits: role tokens, one end token, no newline after it.
TAGGED = ChatFormat(
    opening="<|{role}|>\n",
    end="</s>",
    separator="",
    padding="<pad>",
    roles=("system", "user", "assistant"),
    template=(
        "{% for message in messages %}"
        "{{ '<|' + message['role'] + '|>\\n' + message['content'] + '</s>' }}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
    ),
)

FORMATS = {"chatml": CHATML, "tagged": TAGGED}
