"""A Source: what a backend opened or was given, with its identity and its clean-up.

The framework never asks a Source for more than this; `mdevdisplay.vfio.Device` is one kind, a simulated display
another.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Self

import attrs

from mdevdisplay.errors import Closed

__all__ = ["DeviceInfo", "Finding", "Identity", "Source"]


@attrs.frozen(kw_only=True)
class Identity:
    """What is known of a device before anybody asks its driver; "" where it is not known.

    Attributes:
        name: the UUID or PCI address as sysfs spells it.
        driver: the kernel driver bound to it, e.g. ``mbochs``.
        vendor: the text before the first ``-`` of its mdev type, or the parent's driver: ``i915``, ``nvidia``.
        mdev_type: the type's directory name, e.g. ``i915-GVTg_V5_4``.
        parent: the parent device as sysfs spells it.
    """

    name: str = ""
    driver: str = ""
    vendor: str = ""
    mdev_type: str = ""
    parent: str = ""


class Source:
    """An open device, owned or borrowed.

    Subclasses release what they hold in ``_release()``; backends register their own clean-ups with `on_close`.

    Attributes:
        locator: how the user named it, for messages.
        identity: what is known of it.
        borrowed: True where another process (a VMM) owns the device: nothing may be written to it.
        state: a place for one object a backend, keyed by the backend's name.
    """

    def __init__(self, locator: str, identity: Identity | None = None, *, borrowed: bool = False) -> None:
        self.locator = locator
        self.identity = identity or Identity()
        self.borrowed = borrowed
        self.state: dict[str, Any] = {}
        self._closed = False
        self._cleanups: list[Callable[[], object]] = []
        self._after: list[Callable[[], object]] = []

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return self._closed

    def check_open(self) -> None:
        """Raise `Closed` after close()."""
        if self._closed:
            raise Closed("the device was closed before", device=self.locator, hint="open it again")

    def on_close(self, cleanup: Callable[[], object]) -> None:
        """Call ``cleanup`` at close(), before the device is let go; the latest registered first."""
        self._cleanups.append(cleanup)

    def after_release(self, cleanup: Callable[[], object]) -> None:
        """Call ``cleanup`` at close(), once the device itself is let go; the latest registered first."""
        self._after.append(cleanup)

    def close(self) -> None:
        """Run the clean-ups, then let go of the device. A second call does nothing.

        Every clean-up runs even if one raises; the first error is raised at the end.
        """
        if self._closed:
            return
        self._closed = True
        first: Exception | None = None
        for step in [*reversed(self._cleanups), self.state.clear, self._release, *reversed(self._after)]:
            try:
                step()
            except Exception as error:  # noqa: BLE001 - one clean-up must not keep the others from running
                first = first or error
        self._cleanups.clear()
        self._after.clear()
        if first is not None:
            raise first

    def _release(self) -> None:
        """Let go of what the subclass holds."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            try:
                warnings.warn(f"{self.locator}: a source was not closed", ResourceWarning, stacklevel=2, source=self)
            finally:  # the warning may be an error
                self.close()

    def __repr__(self) -> str:
        kind = "closed" if self._closed else "borrowed" if self.borrowed else "owned"
        return f"<{type(self).__name__} {self.locator!r} {kind}>"


@attrs.frozen(kw_only=True)
class DeviceInfo:
    """One line of ``mdevdisplay list``: a device that could display, from sysfs alone; "" where unknown.

    Attributes:
        locator: what to pass to `mdevdisplay.open`.
        identity: driver, vendor, mdev type and parent.
        type_name: the vendor's name of the mdev type, e.g. ``GVTg_V5_4`` or ``GRID P40-2B``.
        vm: the VM that uses it.
        pid: the process that holds it, or None.
        backend: the backend that lists it, or "" for the host's own.
    """

    locator: str
    identity: Identity = Identity()
    type_name: str = ""
    vm: str = ""
    pid: int | None = None
    backend: str = ""

    @property
    def vendor(self) -> str:
        """The vendor's key, e.g. ``i915``."""
        return self.identity.vendor


@attrs.frozen(kw_only=True)
class Finding:
    """One thing that a backend knows about the state of a device.

    Attributes:
        cause: a stable id, as in the errors' ``cause``.
        evidence: what was seen, in one line.
        remedy: what to do, or "".
    """

    cause: str
    evidence: str
    remedy: str = ""
