"""Documents to ask about: text, Markdown and PDF files, read as plain text."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Literal

from demos.chat.history.records import Attachment

#: Far beyond what any model here can read, and still quick to show.
MAX_BYTES = 20_000_000
MAX_CHARACTERS = 2_000_000
_KINDS: dict[str, Literal["text", "markdown", "pdf"]] = {".md": "markdown", ".markdown": "markdown", ".pdf": "pdf"}


class DocumentError(Exception):
    """The file cannot be attached; the message says why and what to do."""


def read(path: Path) -> Attachment:
    """Blocks while it reads. Raises DocumentError."""
    kind = _KINDS.get(path.suffix.lower(), "text")
    try:
        if path.is_dir():
            raise DocumentError(f"{path.name} is a folder; drop its files instead")
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise DocumentError(f"{path.name} has {size / 1e6:.0f} MB; {MAX_BYTES / 1e6:.0f} MB is the most")
        data = path.read_bytes()
    except OSError as error:
        raise DocumentError(f"{path.name} cannot be read: {error.strerror or error}") from None
    text = (_pdf(path.name, data) if kind == "pdf" else _text(path.name, data)).strip()
    if not text:
        what = (
            "holds no text: a scanned PDF needs to go through text recognition first" if kind == "pdf" else "is empty"
        )
        raise DocumentError(f"{path.name} {what}")
    if len(text) > MAX_CHARACTERS:
        raise DocumentError(f"{path.name} has {len(text):,} characters; {MAX_CHARACTERS:,} is the most")
    return Attachment(path.name, kind, text)


def _text(name: str, data: bytes) -> str:
    encoding = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    if encoding != "utf-16" and b"\0" in data:
        raise DocumentError(f"{name} is not a text file; text, Markdown and PDF can be attached")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        raise DocumentError(f"{name} is not UTF-8 text; text, Markdown and PDF can be attached") from None


def _pdf(name: str, data: bytes) -> str:
    from pypdf import PdfReader
    from pypdf.errors import PyPdfError

    try:
        reader = PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise DocumentError(f"{name} is protected by a password; save a copy without one")
        return "\n\n".join(page.extract_text() for page in reader.pages)
    except PyPdfError as error:
        raise DocumentError(f"{name} is no PDF that can be read: {error}") from None
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        # pypdf meets a damaged file in many ways.
        raise DocumentError(f"{name} is a damaged PDF: {error}") from None
