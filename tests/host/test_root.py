"""Where the host's trees are, and attributes that are missing, huge or not text."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdevdisplay.host import HostRoot
from mdevdisplay.host.root import read_attribute


@pytest.mark.parametrize(("value", "root"), [("", "/"), ("/host", "/host"), (None, "/")])
def test_the_root_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch, value: str | None, root: str) -> None:
    """MDEVDISPLAY_HOST_ROOT, else /."""
    monkeypatch.delenv("MDEVDISPLAY_HOST_ROOT", raising=False)
    if value is not None:
        monkeypatch.setenv("MDEVDISPLAY_HOST_ROOT", value)
    found = HostRoot.from_environment()
    assert found.path == Path(root)
    assert [found.sys, found.proc, found.run, found.dev] == [
        Path(root) / name for name in ("sys", "proc", "run", "dev")
    ]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"GRID P40-2B\n", "GRID P40-2B"),
        (b"  padded \n\n", "padded"),
        (b"", ""),
        (b"\n", ""),
        (b"\0\0\n", ""),
        (b"two\nlines\n", "two\nlines"),
        ("GVTg\N{REGISTERED SIGN}\n".encode(), "GVTg®"),
        (b"\xff\xfe\n", "��"),
    ],
)
def test_an_attribute_is_its_text_without_the_line_end(tmp_path: Path, content: bytes, text: str) -> None:
    """Bytes that are not text are replaced, never an error."""
    (tmp_path / "name").write_bytes(content)
    assert read_attribute(tmp_path / "name") == text


def test_a_missing_or_unreadable_attribute_is_empty(tmp_path: Path) -> None:
    """Every attribute is optional: drivers differ, and devices vanish."""
    assert read_attribute(tmp_path / "missing") == ""
    (tmp_path / "folder").mkdir()
    assert read_attribute(tmp_path / "folder") == ""
    (tmp_path / "loop").symlink_to("loop")
    assert read_attribute(tmp_path / "loop") == ""


def test_an_endless_attribute_is_cut(tmp_path: Path) -> None:
    """At most 4096 bytes are read, whatever the driver says."""
    (tmp_path / "huge").write_bytes(b"x" * (1 << 20))
    assert read_attribute(tmp_path / "huge") == "x" * 4096
    assert len(read_attribute(Path("/dev/zero"))) <= 4096


@given(st.binary(max_size=6000))
def test_any_bytes_are_text(tmp_path: Path, content: bytes) -> None:
    """No bytes crash the reader, and the text is bounded."""
    (tmp_path / "any").write_bytes(content)
    text = read_attribute(tmp_path / "any")
    assert len(text) <= 4096
    assert text == content[:4096].decode("utf-8", "replace").strip("\n\0 ")
