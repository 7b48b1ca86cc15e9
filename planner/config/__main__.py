"""`python -m planner.config write docs` writes the published JSON Schema of split configurations there; `check docs`
exits with 1 where the one that is there differs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from speed_controller.plan_file import json_schema

NAME = "split-config.schema.json"


def schema_text() -> str:
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def main(arguments: list[str]) -> int:
    match arguments:
        case ["write", folder]:
            (Path(folder) / NAME).write_text(schema_text(), encoding="utf-8")
            return 0
        case ["check", folder]:
            path = Path(folder) / NAME
            return 0 if path.is_file() and path.read_text(encoding="utf-8") == schema_text() else 1
        case _:
            sys.stderr.write("usage: python -m planner.config write|check FOLDER\n")
            return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
