"""The README's example runs as it stands, against a real service."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from model_runtime.loading import load_engine
from tests.cloud_service.conftest import serve

__all__ = ["serve"]

ROOT = Path(__file__).parents[2]


async def test_the_example_in_the_readme_runs(serve, capsys, monkeypatch) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert "ws://127.0.0.1:8080" in example
    assert "asyncio.run(main())" in example
    running = serve(load_engine(ROOT / "demos/models/cloud"))
    monkeypatch.chdir(ROOT)
    code = example.replace("ws://127.0.0.1:8080", running.url).replace("asyncio.run(main())", "")
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)  # noqa: S102 - our own file
    await asyncio.wait_for(names["main"](), 60)  # type: ignore[operator]
    said = capsys.readouterr().out
    assert "ms to the first token" in said
    assert "SourceSpan(source=" in said
