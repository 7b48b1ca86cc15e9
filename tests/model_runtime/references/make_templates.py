"""Writes templates.json: what transformers renders for the templates and conversations of the tests.

Needs an environment with transformers (written with 4.57.6), which the tests themselves do without:

    python tests/model_runtime/references/make_templates.py
"""

import json
from pathlib import Path

import transformers
from transformers.utils import chat_template_utils

HERE = Path(__file__).parent
DATE = "21 Nov 2026"
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}

CONVERSATIONS = {
    "one turn": [{"role": "user", "content": "What is where?"}],
    "with a system message": [
        {"role": "system", "content": " Answer in one word.\n"},
        {"role": "user", "content": "Is it?"},
        {"role": "assistant", "content": " Yes. "},
        {"role": "user", "content": "\n\nThe pump,\ttoo?  \n"},
    ],
    "thinking": [
        {"role": "user", "content": "Count."},
        {"role": "assistant", "content": "<think>\none, two\n</think>\n\nTwo.\n"},
        {"role": "user", "content": "skip"},
        {"role": "assistant", "content": "<think>more</think>Three"},
    ],
    "other scripts": [
        {"role": "user", "content": "日本語 — naïve “quotes” \\ \"and\" 'these' 🙂 <b>&amp;</b> {{ 7 * 7 }} {% raw %}"},
        {"role": "assistant", "content": ""},
    ],
}


def render(template: str, messages: list[dict[str, str]], add_generation_prompt: bool) -> dict[str, str]:
    compiled = chat_template_utils._compile_jinja_template(template)
    compiled.environment.globals["strftime_now"] = lambda _: DATE
    try:
        text = compiled.render(
            messages=messages, tools=None, documents=None, add_generation_prompt=add_generation_prompt, **TOKENS
        )
    except Exception as error:
        return {"error": str(error)}
    return {"text": text}


def main() -> None:
    cases = [
        {
            "template": path.stem,
            "messages": messages,
            "add_generation_prompt": prompt,
            **render(path.read_text(), messages, prompt),
        }
        for path in sorted((HERE / "templates").glob("*.jinja"))
        for messages in CONVERSATIONS.values()
        for prompt in (True, False)
    ]
    reference = {"made_with": f"transformers {transformers.__version__}", "date": DATE, **TOKENS, "cases": cases}
    (HERE / "templates.json").write_text(json.dumps(reference, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
