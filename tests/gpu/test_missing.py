"""What a machine may lack, each in a process whose loader or driver is told so: the error names it and what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mesa import environment

SCRIPT = """
import json
from mdevdisplay.errors import MdevDisplayError
from mdevdisplay.gpu.importer import GpuImporter
try:
    with GpuImporter(None, device="sim:") as importer:
        print(json.dumps({"renderer": importer.renderer}))
except MdevDisplayError as error:
    print(json.dumps({"kind": type(error).__name__, "cause": error.cause, "text": str(error)}))
"""


def outcome(**changes: str) -> dict[str, str]:
    """What an importer is, or says, in a process with this environment."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, **environment(), **changes},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # Mesa warns on standard output too, before ours or after
    (line,) = [line for line in done.stdout.splitlines() if line.startswith(("{", "["))]
    found = json.loads(line)
    assert isinstance(found, dict)
    return found


def test_with_everything_there_it_reads() -> None:
    """The processes of this test differ from one that works in one thing each."""
    assert outcome()["renderer"].startswith("llvmpipe")


def test_without_libegl_the_package_is_named(tmp_path: Path) -> None:
    """The loader finds no usable libEGL.so.1."""
    (tmp_path / "libEGL.so.1").write_bytes(b"")
    found = outcome(LD_LIBRARY_PATH=f"{tmp_path}:{environment()['LD_LIBRARY_PATH']}")
    assert (found["kind"], found["cause"]) == ("NotMappable", "no-egl")
    assert found["text"].startswith("sim:")
    assert "libEGL.so.1 cannot be loaded" in found["text"]
    assert "install libegl1" in found["text"]


def test_a_libegl_that_is_no_egl_is_named_too(tmp_path: Path) -> None:
    """A library by that name without a single function of EGL."""
    (tmp_path / "libEGL.so.1").symlink_to(Path(environment()["LD_LIBRARY_PATH"]) / "libzstd.so.1")
    found = outcome(LD_LIBRARY_PATH=f"{tmp_path}:{environment()['LD_LIBRARY_PATH']}")
    assert (found["kind"], found["cause"]) == ("NotMappable", "no-egl")
    assert "eglGetProcAddress" in found["text"]


def test_without_a_driver_of_egl_the_package_is_named() -> None:
    """The dispatcher alone, libegl1 without libegl-mesa0."""
    found = outcome(__EGL_VENDOR_LIBRARY_FILENAMES="/nonexistent.json")
    assert (found["kind"], found["cause"]) == ("NotMappable", "no-egl")
    assert "libegl-mesa0" in found["text"]


def test_a_renderer_that_cannot_import_is_refused_with_the_version_that_can() -> None:
    """Mesa's other software renderer has no import, just as llvmpipe of Debian 12."""
    found = outcome(GALLIUM_DRIVER="softpipe")
    assert (found["kind"], found["cause"]) == ("NotMappable", "no-dmabuf-import")
    assert "EGL_EXT_image_dma_buf_import" in found["text"]
    assert "apt install -t bookworm-backports libegl-mesa0" in found["text"]


@pytest.mark.parametrize("extension", ["GL_OES_EGL_image", "GL_EXT_read_format_bgra"])
def test_an_opengl_that_lacks_an_extension_is_refused_by_its_name(extension: str) -> None:
    """Each extension of OpenGL ES that is used is asked for first."""
    found = outcome(MESA_EXTENSION_OVERRIDE=f"-{extension}")
    assert (found["kind"], found["cause"]) == ("NotMappable", "no-dmabuf-import")
    assert extension in found["text"]
    assert "Mesa 25" in found["text"]


def test_an_opengl_es_that_is_too_old_is_refused() -> None:
    """No context of version 3: what EGL says is passed on."""
    found = outcome(MESA_GLES_VERSION_OVERRIDE="2.0")
    assert (found["kind"], found["cause"]) == ("DriverError", "gpu-failed")
    assert "making an OpenGL ES 3 context" in found["text"]


def test_importing_the_module_loads_no_library() -> None:
    """A program that never meets such a buffer pays nothing for it."""
    script = "import mdevdisplay.gpu.importer; print('libEGL' in open('/proc/self/maps').read())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=100)
    assert done.stdout == "False\n"
