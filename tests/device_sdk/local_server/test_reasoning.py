"""A reasoning model's thinking, as clients of DeepSeek's API and llama-server read it."""

from __future__ import annotations

import pytest

from tests.device_sdk.conftest import PROMPT, per_token
from tests.device_sdk.conversation.test_thinking import ANSWER, THOUGHT, thinker
from tests.device_sdk.local_server.conftest import MODEL

CHAT = [{"role": "user", "content": PROMPT}]


@pytest.mark.parametrize("stream", [False, True])
def test_thinking_and_answer_come_apart(local, serve, stream: bool) -> None:
    server = local(thinker(delay=per_token(0.001)), cloud=serve(thinker()).url)
    asked = {"model": MODEL, "messages": CHAT, "temperature": 0, "extra_body": {"pd_device": {"grant": 6}}}
    with server.client() as api:
        if stream:
            usage = {"include_usage": True}
            chunks = list(api.chat.completions.create(**asked, stream=True, stream_options=usage))
            deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
            thought = "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas)
            said = "".join(delta.content or "" for delta in deltas)
            last = chunks[-1]
        else:
            last = api.chat.completions.create(**asked)
            message = last.choices[0].message
            thought, said = message.reasoning_content, message.content
            # What came may be sent back as it is.
            history = [*CHAT, message.model_dump(), {"role": "user", "content": "Sure?"}]
            assert api.chat.completions.create(**{**asked, "messages": history}).choices
    assert thought.strip() == THOUGHT.strip()
    assert said == ANSWER
    assert last.usage.completion_tokens_details.reasoning_tokens == last.pd_device["thinking_tokens"] > 0


def test_a_raw_prompt_s_answer_is_all_of_its_text(local) -> None:
    with local(thinker()).client() as api:
        text = api.completions.create(model=MODEL, prompt=PROMPT, max_tokens=200, temperature=0).choices[0].text
    assert text.strip() == f"{THOUGHT}{ANSWER}"
