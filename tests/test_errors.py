"""The error tree, and errno on its way into it."""

from __future__ import annotations

import copy
import errno
import inspect
import pickle

import pytest

from mdevdisplay import errors
from mdevdisplay.errors import (
    Closed,
    DeviceBusy,
    DeviceGone,
    DriverError,
    MdevDisplayError,
    NotADisplay,
    NotMappable,
    NotPermitted,
    TimedOut,
    from_oserror,
    translated,
)

CLASSES = [
    value for _, value in sorted(vars(errors).items()) if inspect.isclass(value) and issubclass(value, MdevDisplayError)
]


def test_every_error_is_public_and_no_other_name_is() -> None:
    """``__all__`` has each class of the tree and the two functions."""
    assert sorted(errors.__all__) == sorted([*(kind.__name__ for kind in CLASSES), "from_oserror", "translated"])


def test_no_two_errors_share_a_cause() -> None:
    """A cause tells one error from all others, so that programs can use it."""
    causes = [kind.cause for kind in CLASSES]
    assert len(causes) > 20
    assert len(set(causes)) == len(causes)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_an_error_survives_pickling_and_copying(kind: type[MdevDisplayError]) -> None:
    """A worker process can send an error home with everything in it."""
    error = kind("it broke", device="0000:41:00.4", hint="mend it", cause="special", errno=errno.EBUSY)
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is kind
        assert str(twin) == str(error)
        assert (twin.message, twin.device, twin.hint, twin.cause, twin.errno) == (
            "it broke",
            "0000:41:00.4",
            "mend it",
            "special",
            errno.EBUSY,
        )


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_an_error_has_no_errno_unless_a_system_call_failed(kind: type[MdevDisplayError]) -> None:
    """Without an errno given there is None, also where the class is an OSError too."""
    assert kind("it broke").errno is None
    assert pickle.loads(pickle.dumps(kind("it broke"))).errno is None


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (("", ""), "it broke [error]"),
        (("vm:win10", ""), "vm:win10: it broke [error]"),
        (("", "mend it"), "it broke [error]; mend it"),
        (("vm:win10", "mend it"), "vm:win10: it broke [error]; mend it"),
    ],
)
def test_the_text_names_the_device_first_and_the_remedy_last(parts: tuple[str, str], text: str) -> None:
    """Missing parts leave no separator behind."""
    assert str(MdevDisplayError("it broke", device=parts[0], hint=parts[1])) == text


def test_a_cause_of_its_own_belongs_to_one_error_only() -> None:
    """Naming a cause changes the instance, not its class."""
    assert DriverError("x", cause="borrowed-read-only").cause == "borrowed-read-only"
    assert DriverError("x").cause == "driver-error"


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.EACCES, NotPermitted),
        (errno.EPERM, NotPermitted),
        (errno.EBUSY, DeviceBusy),
        (errno.ENODEV, DeviceGone),
        (errno.ENXIO, DeviceGone),
        (errno.ENOENT, DeviceGone),
        (errno.ENOTTY, NotADisplay),
        (errno.ETIMEDOUT, TimedOut),
        (errno.EINVAL, DriverError),
        (errno.EIO, DriverError),
    ],
)
def test_an_errno_becomes_its_class(number: int, kind: type[MdevDisplayError]) -> None:
    """The class says what it means; the message keeps the kernel's name and words for it."""
    error = from_oserror(OSError(number, "ignored"), device="d", doing="opening it", hint="h")
    assert type(error) is kind
    assert error.errno == number
    assert error.device == "d"
    assert error.hint == "h"
    assert error.message.startswith(f"opening it failed: {errno.errorcode[number]} (")


def test_an_unknown_errno_is_shown_as_its_number() -> None:
    """A number without a name is not lost; neither is an OSError without a number."""
    assert from_oserror(OSError(4095, ""), device="", doing="x").message.startswith("x failed: errno 4095 (")
    assert from_oserror(OSError("no number"), device="", doing="x").errno == 0


def test_the_caller_may_know_better_than_the_errno() -> None:
    """``kind`` overrides the table."""
    error = from_oserror(OSError(errno.EACCES, ""), device="", doing="mapping", kind=NotMappable)
    assert type(error) is NotMappable
    assert error.errno == errno.EACCES


def test_translated_keeps_the_original_error() -> None:
    """The OSError stays as ``__cause__``, so a traceback shows both."""
    original = OSError(errno.EBUSY, "busy")
    with pytest.raises(DeviceBusy) as caught, translated("d", "opening it", "wait"):
        raise original
    assert caught.value.__cause__ is original
    assert str(caught.value) == "d: opening it failed: EBUSY (Device or resource busy) [device-busy]; wait"


@pytest.mark.parametrize("error", [Closed("x"), TimedOut("slow"), ValueError("not ours")])
def test_translated_lets_everything_else_through(error: Exception) -> None:
    """An error of ours stays as it is, even one that is an OSError too; so does a stranger."""
    with pytest.raises(type(error)) as caught, translated("d", "opening it"):
        raise error
    assert caught.value is error


def test_a_timeout_is_a_timeout_error_too() -> None:
    """Programs that know only Python's TimeoutError catch ours."""
    with pytest.raises(TimeoutError, match="slow"):
        raise TimedOut("slow")
