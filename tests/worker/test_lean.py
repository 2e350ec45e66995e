"""What a worker leaves out of its modules changes nothing that they do."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mdevdisplay.worker.lean import _bare
from mdevdisplay.worker.points import find_points

SOURCE = '''
"""A module."""
LONG = "a text that is no docstring and much longer than that"


def documented(number):
    """What nobody reads in a worker, which is longer than forty characters."""
    return number + 1


def equal():
    """A text that the function returns as well, so it has to stay there."""
    return "A text that the function returns as well, so it has to stay there."


def undocumented():
    return "a text that is no docstring and much longer than that"


class Holder:
    """A class."""

    def method(self):
        """Nested, and longer than forty characters, as documentation is."""
        return ["another text in a comprehension, longer than forty" for _ in range(2)]


short = lambda: "a text in a lambda, longer than forty characters too"
'''


def test_docstrings_go_and_behaviour_stays() -> None:
    """Also where a text is the docstring and something else, or the first constant of something without one."""
    space: dict[str, object] = {}
    exec(_bare(compile(SOURCE, "x", "exec")), space)
    plain: dict[str, object] = {}
    exec(compile(SOURCE, "x", "exec"), plain)
    for names in (space, plain):
        documented, equal, undocumented, holder, short = (
            names[name] for name in ("documented", "equal", "undocumented", "Holder", "short")
        )
        assert documented(1) == 2  # type: ignore[operator]
        assert equal() == "A text that the function returns as well, so it has to stay there."  # type: ignore[operator]
        assert undocumented() == names["LONG"]  # type: ignore[operator]
        assert holder().method() == ["another text in a comprehension, longer than forty"] * 2  # type: ignore[operator]
        assert short() == "a text in a lambda, longer than forty characters too"  # type: ignore[operator]
    assert space["documented"].__doc__ is None
    assert space["Holder"].method.__doc__ is None  # type: ignore[attr-defined]
    assert plain["documented"].__doc__ is not None


IN_A_WORKER = """
import sys
from mdevdisplay.worker import lean, points
found = points.find_points()
for name in [name for name in sys.modules if name.startswith(("importlib.metadata", "email", "zipfile"))]:
    del sys.modules[name]
lean.install()
points.install_points(found)
"""

CHECKS = {
    "heavy modules are not imported": """
from mdevdisplay.connecting import connect
reader = connect("sim:64x64", None, 0)
from mdevdisplay import PlaneType
reader.look(PlaneType.PRIMARY).pixels
reader.backend_info
reader.close()
heavy = {"email", "zipfile", "click", "rich", "PIL", "isal", "asyncio", "aiohttp", "hypothesis", "logging", "ssl"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
""",
    "what is put off is there for whoever uses it": """
import ipaddress, attrs, numpy
assert str(ipaddress.ip_address("127.0.0.1")) == "127.0.0.1"
from attrs.validators import instance_of
@attrs.define
class Checked:
    number: int = attrs.field(validator=instance_of(int))
try:
    Checked("x")
except TypeError:
    pass
else:
    raise SystemExit("not checked")
assert numpy.matrix([[1, 2]]).sum() == 3
assert numpy.linalg.det(numpy.eye(2)) == 1
""",
    "the rest of importlib.metadata is the real one": """
from importlib import metadata
import importlib.metadata
assert metadata.version("numpy")
assert importlib.metadata.distribution("numpy").metadata["Name"].lower() == "numpy"
assert len(metadata.entry_points(group="console_scripts")) > 0
assert [point.name for point in metadata.entry_points(group="mdevdisplay")] == [entry[0] for entry in found]
try:
    metadata.version("there-is-no-such-distribution")
except metadata.PackageNotFoundError:
    pass
else:
    raise SystemExit("found")
try:
    metadata.no_such_name
except AttributeError:
    pass
else:
    raise SystemExit("found")
""",
    "backends are the same": """
from mdevdisplay.connecting import backends
assert not backends().failures, backends().failures
assert [plugin.name for plugin in backends().plugins] == [entry[0] for entry in found]
assert {plugin.distribution for plugin in backends().plugins} >= {"mdevdisplay"}
""",
}


@pytest.mark.parametrize("check", CHECKS)
def test_in_a_worker(check: str) -> None:
    """Whatever is left out or put off, modules do what they do elsewhere."""
    code = IN_A_WORKER + CHECKS[check]
    result = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_points_are_those_of_the_installation() -> None:
    """Name, value, distribution and version; found once."""
    from importlib.metadata import entry_points

    found = find_points()
    assert {(entry[0], entry[1]) for entry in found} == {
        (point.name, point.value) for point in entry_points(group="mdevdisplay")
    }
    assert ["simulated", "mdevdisplay_simulated", "mdevdisplay"] in [entry[:3] for entry in found]
    assert find_points() is found
