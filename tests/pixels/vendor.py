"""A vendor's backend, installed as a third party's would be: a module and a distribution with an entry point."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import mdevdisplay

MODULE = '''
"""Backend of ACME, whose displays are 16x8 pixels of a format of its own; each byte of a pixel is its value plus 1."""

import fcntl
import json
import os
import numpy as np
from mdevdisplay import DeviceInfo, Identity, Match, PlaneType, Refusal, Source, SurfaceInfo, hookimpl
from mdevdisplay.errors import LocatorError
from mdevdisplay.formats import fourcc
from mdevdisplay.region import Mappable
from mdevdisplay.source import Finding

behaviour = {}   # name of a hook -> what it raises, or a function that is called instead of it
opened = []
NAME = os.environ.get("ACME_NAME", "acme")
listed = [DeviceInfo(**device, identity=Identity(name=NAME, driver=NAME, mdev_type=NAME, parent=NAME))
          for device in json.loads(os.environ.get("ACME_DEVICES", "[]"))]


class AcmeSource(Source):
    def __init__(self, locator):
        super().__init__(locator, Identity(name=NAME, driver=NAME, mdev_type=NAME, parent=NAME, vendor="acme"))
        self.fd = os.memfd_create("acme-display", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        os.ftruncate(self.fd, 4096)
        os.pwrite(self.fd, bytes(range(256)) * 2, 0)
        self.code = locator.partition(":")[2].partition(",")[0] or "ACME"
        self.surface = SurfaceInfo(fourcc=fourcc(self.code), width=16, height=8, stride=64, size=512)
        self.closings = 0

    def _release(self):
        self.closings += 1
        os.close(self.fd)


def _override(hook, *arguments):
    value = behaviour.get(hook)
    if isinstance(value, BaseException):
        raise value
    return value and value(*arguments)


def _hook(function):
    def call(*arguments):
        if function.__name__ in behaviour:
            return _override(function.__name__, *arguments)
        return function(*arguments)
    return call


@hookimpl
def open_locator(locator):
    if "open_locator" in behaviour:
        return _override("open_locator", locator)
    if not locator.startswith("acme:"):
        return None
    if locator.endswith("?"):
        raise LocatorError(f"no question marks: {NAME}", device=locator, hint=f"leave it out: {NAME}")
    opened.append(AcmeSource(locator))
    return opened[-1]


@hookimpl
def list_devices():
    return _override("list_devices") if "list_devices" in behaviour else listed


@hookimpl
def probe(source):
    if not isinstance(source, AcmeSource):
        return Refusal("not an ACME display")
    return _override("probe", source) if "probe" in behaviour else Match(100, f"an ACME display: {NAME}")


@hookimpl
def get_surface_info(source, plane, output):
    if "get_surface_info" in behaviour:
        return _override("get_surface_info", source, plane, output)
    if source.locator.endswith("!"):
        raise RuntimeError(NAME)
    return source.surface if plane is PlaneType.PRIMARY and not output else None


@hookimpl
def query_region(source, surface):
    if "query_region" in behaviour:
        return _override("query_region", source, surface)
    return Mappable(fd=source.fd, offset=0, size=4096)


@hookimpl
def decode(surface, buffer):
    if "decode" in behaviour:
        return _override("decode", surface, buffer)
    if surface.fourcc != fourcc("ACME"):
        return None
    return (buffer[:512].reshape(8, 16, 4) + 1).astype(np.uint8)


@hookimpl
def diagnose(source):
    if "diagnose" in behaviour:
        return _override("diagnose", source)
    return [Finding(cause="acme-fine", evidence=f"the lamp is green: {NAME}")]
'''


def install(folder: Path) -> None:
    """Put the backend into a folder, to be put on a path."""
    (folder / "mdevdisplay_acme.py").write_text(MODULE, encoding="utf-8")
    metadata = folder / "mdevdisplay_acme-4.2.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: mdevdisplay-acme\nVersion: 4.2\n", encoding="utf-8"
    )
    (metadata / "entry_points.txt").write_text("[mdevdisplay]\nacme = mdevdisplay_acme\n", encoding="utf-8")


@contextmanager
def installed(folder: Path) -> Generator[ModuleType]:
    """Install the backend for this process and give its module."""
    install(folder)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    mdevdisplay.backends.cache_clear()
    try:
        yield importlib.import_module("mdevdisplay_acme")
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop("mdevdisplay_acme", None)
        mdevdisplay.backends.cache_clear()
