"""Every error that mdevdisplay raises, and the one place where errno becomes one of them.

Each error names the device, says what was asked and what came back, and ends with what to do.
``cause`` is a short stable id (``"device-busy"``) for programs, for ``--json`` and for ``doctor``, which begins where
an error ends: the same id stands in its table (`mdevdisplay.diagnose.causes`) and in docs/screen-is-black.md.
"""

from __future__ import annotations

import errno as _errno
import os
from collections.abc import Generator
from contextlib import contextmanager

__all__ = [
    "AmbiguousBackend",
    "BadSurface",
    "Closed",
    "DeviceBusy",
    "DeviceGone",
    "DeviceNotFound",
    "DriverError",
    "GuestChangingMode",
    "LocatorError",
    "MdevDisplayError",
    "NoVfio",
    "NotADisplay",
    "NotMappable",
    "NotPermitted",
    "NothingDisplayed",
    "PluginError",
    "TimedOut",
    "TooManyBuffers",
    "UnknownBackend",
    "UnsupportedFormat",
    "UnsupportedModifier",
    "VmGone",
    "WorkerDied",
    "from_oserror",
    "translated",
]


class MdevDisplayError(Exception):
    """Root of the tree.

    Attributes:
        message: what was asked and what came back, without the device and the hint.
        device: the locator of the device that it is about, or "".
        hint: what to do, or "".
        cause: the stable id of the cause.
        errno: the kernel's errno, or None where no system call failed.
    """

    cause = "error"
    errno: int | None = None  # hides the slot of OSError in TimedOut, which pickling would leave out

    def __init__(
        self,
        message: str,
        *,
        device: str = "",
        hint: str = "",
        cause: str | None = None,
        errno: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.device = device
        self.hint = hint
        self.errno = errno
        if cause is not None:
            self.cause = cause

    def __str__(self) -> str:
        text = f"{self.device}: {self.message}" if self.device else self.message
        text = f"{text} [{self.cause}]"
        return f"{text}; {self.hint}" if self.hint else text


class LocatorError(MdevDisplayError):
    """The text is not a locator that any backend understands."""

    cause = "bad-locator"


class DeviceNotFound(MdevDisplayError):
    """A well-formed locator names nothing on this host."""

    cause = "no-such-device"


class DeviceGone(MdevDisplayError):
    """The device was there and is not any more."""

    cause = "device-gone"


class VmGone(DeviceGone):
    """The VM that owned the device has ended; what was held of it was let go."""

    cause = "vm-gone"


class WorkerDied(MdevDisplayError):
    """The process that reads an isolated display has died; the next call starts another."""

    cause = "worker-died"


class DeviceBusy(MdevDisplayError):
    """Somebody else holds the device."""

    cause = "device-busy"


class NotPermitted(MdevDisplayError):
    """The caller may not open or read the device."""

    cause = "not-permitted"


class NoVfio(MdevDisplayError):
    """This host has no VFIO at all: the modules are not loaded."""

    cause = "no-vfio"


class NotADisplay(MdevDisplayError):
    """No backend can read a display from this device."""

    cause = "not-a-display"


class UnknownBackend(MdevDisplayError):
    """The backend asked for is not installed, or did not load."""

    cause = "unknown-backend"


class AmbiguousBackend(MdevDisplayError):
    """Two backends claim the device with the same best score."""

    cause = "ambiguous-backend"


class PluginError(MdevDisplayError):
    """A backend broke its contract: it raised, or returned something it may not return."""

    cause = "plugin-error"


class NothingDisplayed(MdevDisplayError):
    """The device works and its plane shows nothing at the moment."""

    cause = "nothing-displayed"


class BadSurface(MdevDisplayError):
    """What the driver or the guest reported does not add up; the message has the numbers."""

    cause = "bad-surface"


class UnsupportedFormat(MdevDisplayError):
    """The pixels are in a format that cannot be converted; it is named in the message."""

    cause = "unsupported-format"


class UnsupportedModifier(MdevDisplayError):
    """The pixels are in a tiling that cannot be decoded; it is named in the message."""

    cause = "unsupported-modifier"


class NotMappable(MdevDisplayError):
    """The buffer exists and the CPU cannot map it."""

    cause = "not-mappable"


class TooManyBuffers(MdevDisplayError):
    """The guest flips through more buffers than the exporter lets us drop."""

    cause = "too-many-buffers"


class DriverError(MdevDisplayError):
    """The driver refused a request in a way that it should not."""

    cause = "driver-error"


class GuestChangingMode(DriverError):
    """The driver cannot decode the plane now: the guest is setting a mode, and it stays so."""

    cause = "guest-changing-mode"


class TimedOut(MdevDisplayError, TimeoutError):
    """A call did not come back in the time that it was given."""

    cause = "timed-out"


class Closed(MdevDisplayError):
    """The object was closed before."""

    cause = "closed"


_BY_ERRNO: dict[int, type[MdevDisplayError]] = {
    _errno.EACCES: NotPermitted,
    _errno.EPERM: NotPermitted,
    _errno.EBUSY: DeviceBusy,
    _errno.ENODEV: DeviceGone,
    _errno.ENXIO: DeviceGone,
    _errno.ENOENT: DeviceGone,
    _errno.ENOTTY: NotADisplay,
    _errno.ETIMEDOUT: TimedOut,
}


def from_oserror(
    error: OSError,
    *,
    device: str,
    doing: str,
    hint: str = "",
    kind: type[MdevDisplayError] | None = None,
    cause: str | None = None,
) -> MdevDisplayError:
    """Return the error of ours that an OSError means.

    Args:
        error: what the system call raised.
        device: the locator for the message.
        doing: what was asked, as a noun or gerund: "opening /dev/vfio/7".
        hint: what to do about it.
        kind: the class to use where the caller knows better than the errno alone.
        cause: the id of the cause, likewise.
    """
    number = error.errno or 0
    name = _errno.errorcode.get(number, f"errno {number}")
    chosen = kind or _BY_ERRNO.get(number, DriverError)
    message = f"{doing} failed: {name} ({os.strerror(number)})"
    return chosen(message, device=device, hint=hint, errno=number, cause=cause)


@contextmanager
def translated(device: str, doing: str, hint: str = "") -> Generator[None]:
    """Turn any OSError of the block into ours, keeping it as the cause."""
    try:
        yield
    except MdevDisplayError:
        raise
    except OSError as error:
        raise from_oserror(error, device=device, doing=doing, hint=hint) from error
