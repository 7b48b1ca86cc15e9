"""`python -m wire_protocol.describe`: print the protocol's reference, or bring docs/ up to date with the types."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from wire_protocol.describe import asyncapi, markdown


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m wire_protocol.describe", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("markdown", help="print the tables of messages, parts and close codes")
    commands.add_parser("asyncapi", help="print the AsyncAPI document (JSON)")
    write = commands.add_parser("write", help="write asyncapi.json, and the tables in protocol.md")
    write.add_argument("folder", type=Path, help="the folder of both, which is docs/")
    chosen = parser.parse_args(arguments)
    match chosen.command:
        case "markdown":
            sys.stdout.write("\n".join(markdown.blocks().values()))
        case "asyncapi":
            sys.stdout.write(as_text())
        case "write":
            page = chosen.folder / "protocol.md"
            page.write_text(markdown.embed(page.read_text("utf-8")), "utf-8")
            (chosen.folder / "asyncapi.json").write_text(as_text(), "utf-8")


def as_text() -> str:
    return json.dumps(asyncapi.document(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    main()
