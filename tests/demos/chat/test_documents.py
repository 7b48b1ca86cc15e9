"""Documents: text, Markdown and PDF become text, and what cannot says why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pypdf import PdfWriter
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

from demos.chat import documents
from demos.chat.documents import DocumentError, read

if TYPE_CHECKING:
    from pathlib import Path


def pdf(path: Path, text: str = "", password: str = "") -> Path:
    writer = PdfWriter()
    page = writer.add_blank_page(300, 300)
    if text:
        font = DictionaryObject(
            {
                NameObject("/Type"): NameObject("/Font"),
                NameObject("/Subtype"): NameObject("/Type1"),
                NameObject("/BaseFont"): NameObject("/Helvetica"),
            }
        )
        resources = DictionaryObject({NameObject("/Font"): DictionaryObject({NameObject("/F1"): font})})
        page[NameObject("/Resources")] = resources
        content = DecodedStreamObject()
        content.set_data(f"BT /F1 12 Tf 20 200 Td ({text}) Tj ET".encode())
        page[NameObject("/Contents")] = writer._add_object(content)
    if password:
        writer.encrypt(password, algorithm="RC4-128")
    with path.open("wb") as file:
        writer.write(file)
    return path


def test_text_markdown_and_pdf(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\ufeffGrüße\r\n".encode())
    (tmp_path / "b.md").write_text("# Log", encoding="utf-8")
    (tmp_path / "c.log").write_bytes("wide 東京".encode("utf-16"))
    assert (read(tmp_path / "a.txt").text, read(tmp_path / "a.txt").kind) == ("Grüße", "text")
    assert read(tmp_path / "b.md").kind == "markdown"
    assert read(tmp_path / "c.log").text == "wide 東京"
    attached = read(pdf(tmp_path / "d.pdf", "Mira locked the gate"))
    assert (attached.kind, attached.text) == ("pdf", "Mira locked the gate")


def test_what_cannot_be_attached_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "binary.dat").write_bytes(b"\0\1")
    (tmp_path / "latin.txt").write_bytes(b"Gr\xfc\xdfe")
    (tmp_path / "empty.txt").write_text(" \n")
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.7 and then nothing")
    cases = {
        tmp_path / "binary.dat": "not a text file",
        tmp_path / "latin.txt": "not UTF-8",
        tmp_path / "empty.txt": "is empty",
        tmp_path / "broken.pdf": "PDF",
        tmp_path / "missing.txt": "cannot be read",
        tmp_path: "is a folder",
        pdf(tmp_path / "scan.pdf"): "text recognition",
    }
    for path, why in cases.items():
        with pytest.raises(DocumentError, match=why):
            read(path)
    monkeypatch.setattr(documents, "MAX_BYTES", 10)
    (tmp_path / "long.txt").write_text("x" * 11)
    with pytest.raises(DocumentError, match="is the most"):
        read(tmp_path / "long.txt")


def test_a_protected_pdf_asks_for_a_copy_without_a_password(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="password"):
        read(pdf(tmp_path / "secret.pdf", "text", password="word"))
