"""A worker reads a hostile guest's data, so it is not believed: whatever it answers is an error, and nothing leaks."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mdevdisplay import Frame, PlaneType
from mdevdisplay.errors import BadSurface, DriverError, GuestChangingMode, MdevDisplayError, TimedOut, WorkerDied
from mdevdisplay.surface import Rect
from mdevdisplay.worker import client, link, process
from mdevdisplay.worker.client import RemoteReader
from worker.conftest import Remote
from worker.looks import captured

PRIMARY = PlaneType.PRIMARY

PRELUDE = """
import array, fcntl, json, mmap, os, socket, sys, time
s = socket.socket(fileno=int(sys.argv[1]))
s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
def get():
    data, ancillary, _, _ = s.recvmsg(1 << 17, 1000)
    if not data:
        os._exit(0)
    q = json.loads(data)
    q["fds"] = [fd for _, _, content in ancillary for fd in array.array("i", content)]
    return q
def put(o, *fds):
    data = o if isinstance(o, bytes) else json.dumps(o).encode()
    s.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else [])
def sealed(size=65536):
    fd = os.memfd_create("sealed", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    return fd
READY = {"listens": False, "borrowed": True, "announces": False, "sign_lost": False,
    "identity": {"name": "n", "driver": "", "vendor": "", "mdev_type": "", "parent": ""},
    "backend": {"name": "b", "distribution": "d", "version": "1", "score": 50, "reason": "", "refusals": {}}}
SURFACE = {"plane": 1, "fourcc": 0x34325258, "modifier": 0, "width": 64, "height": 64, "stride": 256, "size": 16384,
    "offset": 0, "x": 0, "y": 0, "output": 0, "x_hot": None, "y_hot": None, "dmabuf_id": None, "region_index": None}
q = get()
"""
OPENED = 'put({"id": q["id"], "ready": READY})\nq = get()\n'
CAPTURE = OPENED + 'put({"id": q["id"], "need": 65536})\nq = get()\n'


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A function that puts a script in the place of workers."""
    monkeypatch.setattr(link, "GRACE", 0.1)

    def play(script: str) -> None:
        monkeypatch.setattr(process, "_BOOT", f"{PRELUDE}{script}\nget()\n")

    return play


Played = Callable[[str], None]

NONSENSE = [
    'put(b"nonsense")',
    'put(b"[]")',
    'put(b"[" * 60000)',
    "put(b'{\"id\":1e999}')",
    "put({})",
    'put({"id": -1})',
    'put({"id": 10 ** 30})',
    'put({"id": "1"})',
    'put({"id": True})',
    'put({"id": q["id"], "x": "y" * 70000})',
    'put({"id": q["id"]}, *[0] * 20)',
    'put({"id": q["id"], "error": 5})',
    'put({"id": q["id"], "error": {"class": [], "message": "", "hint": ""}})',
    'put({"id": q["id"], "error": {"class": "Closed", "message": "x" * 9999, "hint": ""}})',
    'put({"id": q["id"], "lost": {}})',
]


@pytest.mark.parametrize(
    "answer",
    [
        *NONSENSE,
        'put({"id": q["id"], "ready": {}})',
        'put({"id": q["id"], "ready": READY | {"announces": 1}})',
        'put({"id": q["id"], "ready": READY | {"sign_lost": None}})',
        'put({"id": q["id"], "shared": 7})',
    ],
)
def test_nonsense_instead_of_ready(remote: Remote, played: Played, answer: str) -> None:
    """The worker is killed; the error says what it said."""
    played(answer)
    with pytest.raises(WorkerDied, match="no answer") as caught:
        remote("sim:")
    assert caught.value.cause == "worker-misbehaved"


SURFACES = [
    *NONSENSE,
    'put({"id": q["id"], "surface": True})',
    'put({"id": q["id"], "surface": 5})',
    'put({"id": q["id"], "surface": SURFACE})',
    'put({"id": q["id"], "surface": SURFACE | {"width": -5}, "number": 1})',
    'put({"id": q["id"], "surface": SURFACE | {"width": 1.5}, "number": 1})',
    'put({"id": q["id"], "surface": SURFACE | {"plane": 9}, "number": 1})',
    'put({"id": q["id"], "surface": SURFACE | {"size": None}, "number": 1})',
    'put({"id": q["id"], "surface": SURFACE, "number": 1}, sealed())',
    'put({"id": q["id"], "surface": SURFACE, "number": 1}, 0, 1)',
]


@pytest.mark.parametrize("answer", SURFACES)
def test_nonsense_instead_of_a_surface(remote: Remote, played: Played, answer: str) -> None:
    """Numbers that are none, surfaces that it does not have told, descriptors that nobody asked for."""
    played(OPENED + answer)
    with pytest.raises(WorkerDied) as caught:
        remote("sim:").surface(PRIMARY)
    assert caught.value.cause == "worker-misbehaved"


def test_numbers_that_contradict_each_other(remote: Remote, played: Played) -> None:
    """As where a driver reports them; the worker lives on."""
    played(OPENED + 'put({"id": q["id"], "surface": SURFACE | {"width": 65}, "number": 1})')
    with pytest.raises(BadSurface, match="65"):
        remote("sim:").surface(PRIMARY)


FRAME = '"surface": SURFACE, "number": 1, "size": 16384, "torn": False, "decoded": None, "serial": 1, "tiles": None'
CAPTURES = [
    *NONSENSE,
    'put({"id": q["id"], "need": 0})',
    'put({"id": q["id"], "need": -1})',
    'put({"id": q["id"], "need": 1 << 40})',
    'put({"id": q["id"], "need": "much"})',
    'put({"id": q["id"], "surface": None})',
    'put({"id": q["id"], "surface": None, "serial": -1})',
    'put({"id": q["id"], "surface": None, "serial": "1"})',
    'put({"id": q["id"], "same": True})',
    'put({"id": q["id"], "same": 1})',
    *(
        f'put({{"id": q["id"], {FRAME}, {change}}})'
        for change in (
            '"size": 16383',
            '"size": 0',
            '"size": 65537',
            '"size": 65536',
            '"torn": 1',
            '"serial": 0',
            '"serial": 1.5',
            '"serial": 1 << 64',
            '"serial": None',
            '"tiles": 1',
            '"tiles": [True]',
            '"tiles": ""',
            '"tiles": "AA"',
            '"tiles": "!!!!"',
            '"tiles": "AAAA"',
            '"decoded": 1',
            '"decoded": 65000',
            '"decoded": -1',
            '"surface": SURFACE | {"height": 4096, "size": 1 << 20}, "size": 1 << 20',
            '"surface": SURFACE | {"fourcc": 1, "size": 1 << 20}, "size": 16384',
            '"surface": SURFACE | {"fourcc": 1}, "size": 16385',
            '"surface": SURFACE | {"modifier": 72057594037927937, "stride": 512, "size": 32768}',
        )
    ),
]


@pytest.mark.parametrize("answer", CAPTURES)
def test_nonsense_instead_of_a_frame(remote: Remote, played: Played, answer: str) -> None:
    """Sizes that do not fit to the surface or the buffer, above all: no array leaves the shared memory."""
    played(CAPTURE + answer)
    with pytest.raises(WorkerDied) as caught:
        remote("sim:").look(PRIMARY)
    assert caught.value.cause == "worker-misbehaved"


def test_what_the_nonsense_is_told_from(remote: Remote, played: Played) -> None:
    """Without any of these changes it is a frame."""
    played(CAPTURE + f'put({{"id": q["id"], {FRAME}}})')
    assert captured(remote("sim:")).raw.shape == (64, 64, 4)


def test_the_same_for_whoever_has_nothing(remote: Remote, played: Played) -> None:
    """A worker that calls a picture the same gets no further than the picture that the caller has."""
    frame = f'put({{"id": q["id"], {FRAME}}})\nq = get()\n'
    played(CAPTURE + frame + 'put({"id": q["id"], "same": True})\nq = get()\nput({"id": q["id"], "same": True})')
    reader = remote("sim:")
    picture = captured(reader)
    assert reader.look(PRIMARY, picture) is picture
    with pytest.raises(WorkerDied):
        reader.look(PRIMARY)


def test_one_serial_for_pictures_of_two_sizes(remote: Remote, played: Played) -> None:
    """What is said of one size is not believed of another: the damage has the tiles of its own picture."""
    wide = '"width": 192, "height": 64, "stride": 768, "size": 49152'
    high = '"width": 64, "height": 192, "stride": 256, "size": 49152'
    answers = [
        f'put({{"id": q["id"], {FRAME}, "surface": SURFACE | {{{shape}}}, "number": {number}, "size": 49152}})'
        for number, shape in enumerate((wide, high, wide), start=1)
    ]
    played(CAPTURE + "\nq = get()\n".join(answers))
    reader = remote("sim:")
    pictures = [captured(reader)]
    for _ in range(2):
        picture = reader.look(PRIMARY, pictures[-1])
        assert isinstance(picture, Frame)
        pictures.append(picture)
    assert [picture.changed_tiles.shape for picture in pictures] == [(1, 3), (3, 1), (1, 3)]
    assert all(picture.damage == (Rect(0, 0, picture.width, picture.height),) for picture in pictures)


def test_a_picture_that_grows_for_ever(remote: Remote, played: Played) -> None:
    """It is given up, and no buffer is left."""
    played(OPENED + 'n = 1\nwhile True:\n    n += 1\n    put({"id": q["id"], "need": n * 65536})\n    q = get()')
    with pytest.raises(GuestChangingMode):
        remote("sim:").look(PRIMARY)


def test_the_most_that_may_be_asked_for_costs_no_memory(remote: Remote, played: Played) -> None:
    """4 GiB are mapped and never touched."""
    played(OPENED + f'put({{"id": q["id"], "need": {1 << 32}}})\nq = get()\nput({{"id": q["id"], {FRAME}}})')
    assert captured(remote("sim:")).raw.shape == (64, 64, 4)


DESCRIPTORS = ["0", "os.open('/dev/null', 0)", "s.fileno()", "os.memfd_create('x')", "os.pipe()[0]", "os.open('/', 0)"]


@pytest.mark.parametrize("fd", DESCRIPTORS)
@pytest.mark.parametrize("operation", ["dmabuf", "pin"])
def test_descriptors_of_other_things(remote: Remote, played: Played, fd: str, operation: str) -> None:
    """Only dma-bufs and memory that nobody can truncate come in."""
    what = '"key": 1' if operation == "dmabuf" else '"offset": 0, "size": 65536, "pixel_offset": 0'
    played(OPENED + f'put({{"id": q["id"], "surface": SURFACE, "number": 1, {what}}}, {fd})')
    with pytest.raises(DriverError) as caught:
        getattr(remote("sim:"), operation)(PRIMARY)
    assert caught.value.cause == "bad-descriptor"


MEMORIES = [
    ('"key": 1', "sealed(100)"),
    ('"key": 1', "sealed(), sealed(), sealed()"),
    ('"key": 1', "sealed(), sealed()"),
    ('"key": -1', "sealed()"),
    ('"key": "x"', "sealed()"),
    ('"key": 1', ""),
]


@pytest.mark.parametrize(("what", "fds"), MEMORIES)
def test_wrong_dmabufs(remote: Remote, played: Played, what: str, fds: str) -> None:
    """Too small, too many, none, or without a key."""
    played(OPENED + f'put({{"id": q["id"], "surface": SURFACE, "number": 1, {what}}}, *[{fds}])')
    with pytest.raises((WorkerDied, BadSurface)):
        remote("sim:").dmabuf(PRIMARY)


REGIONS = [
    '"offset": -4096, "size": 65536, "pixel_offset": 0',
    '"offset": 0, "size": 65536, "pixel_offset": 60000',
    '"offset": 0, "size": 100, "pixel_offset": 0',
    '"offset": 4096000, "size": 65536, "pixel_offset": 0',
    '"offset": 1, "size": 65536, "pixel_offset": 0',
    '"offset": 0, "size": 18446744073709551615, "pixel_offset": 1000000',
    '"offset": 0, "size": 18446744073709551616, "pixel_offset": 0',
    '"offset": 0, "pixel_offset": 0',
]


@pytest.mark.parametrize("what", REGIONS)
def test_wrong_regions(remote: Remote, played: Played, what: str) -> None:
    """Memory that ends before the picture does, or begins nowhere."""
    played(OPENED + f'put({{"id": q["id"], "surface": SURFACE, "number": 1, {what}}}, sealed())')
    with pytest.raises(MdevDisplayError):
        remote("sim:").pin(PRIMARY)


def test_a_flood_of_answers(remote: Remote, played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers to old questions, with descriptors, are thrown away and closed; in the end the worker is killed."""
    monkeypatch.setattr(link, "HANG", 1.0)
    played('put({"id": q["id"], "ready": READY})\nget()\nf = sealed()\nwhile True:\n    put({"id": 0}, f, f)')
    reader = remote("sim:")
    with pytest.raises((TimedOut, WorkerDied)):
        reader.surface(PRIMARY)


def test_a_flood_without_a_question(remote: Remote, played: Played) -> None:
    """What waits in the socket is bounded by the kernel, and goes with it."""
    played('put({"id": q["id"], "ready": READY})\nf = sealed()\nwhile True:\n    put({"id": 0}, f)')
    reader = remote("sim:")
    reader.close()


def test_a_worker_that_closes_its_connection_and_stays(remote: Remote, played: Played) -> None:
    """It is killed."""
    played(OPENED + "s.close(); time.sleep(60)")
    with pytest.raises(WorkerDied, match="SIGKILL"):
        remote("sim:").surface(PRIMARY)


def test_a_name_that_nobody_listens_to(remote: Remote, played: Played) -> None:
    """A worker that says that another has the device is asked again, to read it itself, and then given up."""
    played('put({"id": q["id"], "shared": "mdevdisplay/none"})')
    with pytest.raises(WorkerDied, match="cannot be reached"):
        remote("sim:")


def test_a_descriptor_goes_with_its_worker(played: Played, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """``fd:N`` is handed on and closed here; a worker that dies cannot be replaced, and the error says so."""
    monkeypatch.setattr(client, "BACK_OFF", (0.0,))
    fd = os.open(tmp_path, os.O_RDONLY)
    played(f'assert os.readlink("/proc/self/fd/{fd}") == {str(tmp_path)!r}\n{OPENED}os._exit(3)')
    reader = RemoteReader(f"fd:{fd}")
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)
    with pytest.raises(WorkerDied, match="status 3"):
        reader.surface(PRIMARY)
    with pytest.raises(WorkerDied, match="descriptor that it was given") as caught:
        reader.surface(PRIMARY)
    assert "hand over" in caught.value.hint
    reader.close()
