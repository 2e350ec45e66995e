"""A Source: what a backend opened or was given, with its identity and its clean-up.

The framework never asks a Source for more than this; `mdevdisplay.vfio.Device` is one kind, a simulated display
another.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Protocol, Self

import attrs

from mdevdisplay.errors import Closed, MdevDisplayError

__all__ = ["DeviceInfo", "Finding", "Identity", "Lifeline", "Source"]


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


class Lifeline(Protocol):
    """Tells when the owner of a borrowed device has ended."""

    def fileno(self) -> int:
        """Return a descriptor that becomes readable at that moment and stays so: a pidfd, a socket."""
        ...

    def error(self) -> MdevDisplayError:
        """Return what every later call raises, made anew each time."""
        ...


class Source:
    """An open device, owned or borrowed.

    Subclasses release what they hold in ``_release()``; backends register their own clean-ups with `on_close`.

    Attributes:
        locator: how the user named it, for messages.
        identity: what is known of it.
        borrowed: True where another process (a VMM) owns the device: nothing may be written to it.
        state: a place for one object a backend, keyed by the backend's name.
        cursor_sign_lost: whether a cursor's position is reported as a magnitude, without its sign.
        lifeline: tells when the owner of a borrowed device ends; the framework then calls `lose`. None where nothing
            tells.
    """

    def __init__(self, locator: str, identity: Identity | None = None, *, borrowed: bool = False) -> None:
        self.locator = locator
        self.identity = identity or Identity()
        self.borrowed = borrowed
        self.cursor_sign_lost = False
        self.state: dict[str, Any] = {}
        self.lifeline: Lifeline | None = None
        self._closed = False
        self._lost = False
        self._cleanups: list[Callable[[], object]] = []
        self._after: list[Callable[[], object]] = []

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return self._closed

    def check_open(self) -> None:
        """Raise `Closed` after close(), and the lifeline's own error after lose()."""
        if self._closed:
            if self._lost and self.lifeline is not None:
                raise self.lifeline.error()
            raise Closed("the device was closed before", device=self.locator, hint="open it again")

    def on_close(self, cleanup: Callable[[], object]) -> None:
        """Call ``cleanup`` at close(), before the device is let go; the latest registered first."""
        self._cleanups.append(cleanup)

    def after_release(self, cleanup: Callable[[], object]) -> None:
        """Call ``cleanup`` at close(), once the device itself is let go; the latest registered first."""
        self._after.append(cleanup)

    def lose(self) -> None:
        """Close because the owner has ended: later calls raise the lifeline's error."""
        self._lost = self._lost or not self._closed
        self.close()

    @property
    def lost(self) -> bool:
        """Whether lose() closed it."""
        return self._lost

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
        state: ``in use``: a process holds it, or its VMM's command line names it; ``free``: it can be opened, and every
            process of the host was looked at; ``not bound``: no VFIO driver has it; ``unknown``: no process that we may
            look at has it, and there are others.
        vm_uuid: the UUID of the VM that uses it.
    """

    locator: str
    identity: Identity = Identity()
    type_name: str = ""
    vm: str = ""
    pid: int | None = None
    backend: str = ""
    state: str = ""
    vm_uuid: str = ""

    @property
    def vendor(self) -> str:
        """The vendor's key, e.g. ``i915``."""
        return self.identity.vendor


@attrs.frozen(kw_only=True)
class Finding:
    """One thing that a backend knows about the state of a device.

    Attributes:
        cause: a stable id, as in the errors' ``cause``; one of `mdevdisplay.diagnose.CAUSES`, or the backend's own.
        evidence: what was seen, in one line.
        remedy: what to do, or "".
        explains: the ids of the causes that this is the reason of, such as ``nothing-displayed`` and ``one-colour``:
            where one of these is what is seen, ``doctor`` makes this its verdict.
    """

    cause: str
    evidence: str
    remedy: str = ""
    explains: tuple[str, ...] = ()
