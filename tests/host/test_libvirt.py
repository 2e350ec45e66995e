"""libvirt's run-time state: what is read of it, and what is not believed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdevdisplay.host import HostRoot
from mdevdisplay.host.libvirt import Domain, read_domains

UUID = "48888226-7b6b-415c-bcf7-b278ba0bca62"
# as libvirt's src/qemu/qemu_domain.c and Nova's virt/libvirt/config.py write it
STATE = f"""<!--
WARNING: THIS IS AN AUTO-GENERATED FILE. CHANGES TO IT ARE LIKELY TO BE
OVERWRITTEN AND LOST.
-->

<domstatus state='running' reason='booted' pid='4242'>
  <taint flag='high-privileges'/>
  <monitor path='/var/lib/libvirt/qemu/domain-59/monitor.sock' type='unix'/>
  <vcpus><vcpu id='0' pid='17156'/></vcpus>
  <devices><device alias='balloon0'/></devices>
  <domain type='kvm' id='59'>
    <name>instance-00000028</name>
    <uuid>{UUID.upper()}</uuid>
    <title>The &lt;big&gt; one &amp; only</title>
    <metadata>
      <nova:instance xmlns:nova="http://openstack.org/xmlns/libvirt/nova/1.1">
        <nova:name>web-1</nova:name>
        <nova:owner><nova:user uuid="1">name</nova:user></nova:owner>
      </nova:instance>
      <other:instance xmlns:other="http://example.org/"><other:name>not this</other:name></other:instance>
    </metadata>
    <memory unit='KiB'>2097152</memory>
    <devices><emulator>/usr/bin/qemu</emulator><name>nor this</name></devices>
  </domain>
</domstatus>
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "run/libvirt/qemu"
    path.mkdir(parents=True)
    return path


def read(folder: Path, *pids: int) -> dict[int, Domain]:
    return read_domains(HostRoot(folder.parents[2]), pids or (4242,))


def test_a_domain_has_all_its_names(folder: Path) -> None:
    """The name and UUID of libvirt, its title, and the name that people know in OpenStack."""
    (folder / "instance-00000028.xml").write_text(STATE)
    assert read(folder) == {
        4242: Domain(
            pid=4242,
            name="instance-00000028",
            uuid=UUID,
            others=("The <big> one & only", "web-1"),
            state="running",
            reason="booted",
        )
    }


@pytest.mark.parametrize(
    ("attributes", "state", "reason"),
    [
        ("state='paused' reason='user'", "paused", "user"),
        ("state='paused' reason='starting up'", "paused", "starting up"),
        ("reason='unknown' state='pmsuspended'", "pmsuspended", "unknown"),
        ("state='crashed'", "crashed", ""),
        ("", "", ""),
        (f"state='{'x' * 5000}' reason='{'&lt;' * 5000}'", "x" * 64, "<" * 64),
    ],
)
def test_a_domain_says_its_state(folder: Path, attributes: str, state: str, reason: str) -> None:
    """As libvirt words it, at most 64 characters of each word; the names are read all the same."""
    (folder / "a.xml").write_text(STATE.replace("state='running' reason='booted'", attributes))
    domain = read(folder)[4242]
    assert (domain.state, domain.reason, domain.name) == (state, reason, "instance-00000028")


def test_only_the_processes_asked_for_are_read(folder: Path) -> None:
    """The others' files are left after their first lines; no process, no reading."""
    (folder / "a.xml").write_text(STATE)
    (folder / "b.xml").write_text(STATE.replace("4242", "4243").replace("instance-00000028", "b"))
    assert [domain.name for domain in read(folder, 4243, 9999).values()] == ["b"]
    assert read(folder, 1) == {}
    assert read_domains(HostRoot(folder.parents[2]), []) == {}


def test_a_host_without_libvirt_has_no_domains(tmp_path: Path) -> None:
    """No folder, or a file in its place."""
    assert read(tmp_path / "run/libvirt/qemu") == {}
    (tmp_path / "run/libvirt").mkdir(parents=True)
    (tmp_path / "run/libvirt/qemu").write_text("")
    assert read(tmp_path / "run/libvirt/qemu") == {}


EVIL = '<!DOCTYPE domstatus [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;"><!ENTITY f SYSTEM "file:///etc/hostname">]>'


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 100,
        b"not XML",
        STATE[: STATE.index("<uuid>")].encode(),
        STATE[: STATE.index("<monitor")].encode(),
        STATE.replace("<title>", "<title").encode(),
        (EVIL + STATE).encode(),
        (EVIL + STATE).encode("utf-16"),
        EVIL.encode() + STATE.replace("The", "&f;&b;").encode(),
        STATE.replace("The", "&undefined;").encode(),
        STATE.replace("domstatus", "domain").encode(),
        STATE.replace("pid='4242'", "").encode(),
        STATE.replace("pid='4242'", "pid='-4242'").encode(),
        STATE.replace("pid='4242'", "pid='4242 '").encode(),
        STATE.replace("pid='4242'", f"pid='{'4' * 5000}'").encode(),
        b"<?xml version='1.0' encoding='no-such'?>" + STATE.encode(),
        b"\xff\xfe\xfd" + STATE.encode(),
    ],
)
def test_what_makes_no_sense_is_left_out(folder: Path, content: bytes) -> None:
    """Half a file, another one, entities, a number that is none: the other domains are read all the same."""
    (folder / "evil.xml").write_bytes(content)
    (folder / "good.xml").write_text(STATE.replace("4242", "77").replace("instance-00000028", "good"))
    assert [domain.name for domain in read(folder, 4242, 77, 0).values()] == ["good"]


def test_what_cannot_be_read_is_left_out(folder: Path) -> None:
    """A folder, a link to nowhere, a pipe that nobody writes to, something without the ending."""
    (folder / "folder.xml").mkdir()
    (folder / "nowhere.xml").symlink_to("missing")
    os.mkfifo(folder / "pipe.xml")
    (folder / "autostart").write_text(STATE)
    assert read(folder) == {}


def test_an_endless_file_is_left(folder: Path) -> None:
    """At most 4 MiB are read of one, and 4096 characters kept of a name."""
    (folder / "zero.xml").symlink_to("/dev/zero")
    (folder / "long.xml").write_text(STATE.replace("</domstatus>", ""))
    (folder / "late.xml").write_text(
        STATE.replace("4242", "7").replace("<domain type", f"<!--{' ' * (5 << 20)}--><domain type")
    )
    (folder / "name.xml").write_text(STATE.replace("4242", "8").replace("instance-00000028", "n" * 100_000))
    found = read(folder, 4242, 7, 8)
    assert sorted(found) == [8, 4242]
    assert found[8].name == "n" * 4096


TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=30).map(str.strip)


@given(name=TEXTS, title=TEXTS)
def test_any_name_comes_back(tmp_path_factory: pytest.TempPathFactory, name: str, title: str) -> None:
    """Escaped as XML wants it."""
    from xml.sax.saxutils import escape

    folder = tmp_path_factory.mktemp("host") / "run/libvirt/qemu"
    folder.mkdir(parents=True)
    text = STATE.replace("instance-00000028", escape(name)).replace("The &lt;big&gt; one &amp; only", escape(title))
    (folder / "a.xml").write_text(text, encoding="utf-8")
    domain = read(folder)[4242]
    assert domain.name == name
    assert domain.others == tuple(dict.fromkeys(text for text in (title, "web-1") if text and text != name))


@given(content=st.one_of(st.binary(max_size=300), st.text("<>&;!/= 'domstatuspid4242name\n", max_size=200)))
def test_any_file_is_read_or_left(tmp_path_factory: pytest.TempPathFactory, content: bytes | str) -> None:
    """Never an exception."""
    folder = tmp_path_factory.mktemp("host") / "run/libvirt/qemu"
    folder.mkdir(parents=True)
    (folder / "a.xml").write_bytes(content if isinstance(content, bytes) else content.encode())
    read(folder)
