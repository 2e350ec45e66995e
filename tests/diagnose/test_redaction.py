"""Names that leave a text, and text that stays."""

from __future__ import annotations

import json
import re
import shlex

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mdevdisplay.diagnose.redaction import Redactor, blank_edid, is_plain_name
from mdevdisplay.vfio.edid import Edid

UUID = "44cc0626-1a2b-4c3d-8e4f-0123456789ab"


def redactor(*names: str) -> Redactor:
    """Return a redactor that knows names of VMs and devices."""
    made = Redactor()
    made.hide_all(names)
    return made


def test_equal_names_stay_equal_and_others_differ() -> None:
    """One can still follow which VM is meant."""
    text = redactor("win10", "db").redact("VM 'win10' (pid 7), VM 'db' (pid 8); vm:win10/1, vm:db, win10")
    assert text == "VM 'vm-1' (pid 7), VM 'vm-2' (pid 8); vm:vm-1/1, vm:vm-2, vm-1"


def test_names_of_one_thing_are_one_word() -> None:
    """As a VM with an alias, and a host with a domain."""
    made = Redactor()
    made.hide("vm", "web", "mail-alias", "")
    made.hide("host", "box.example.org", "box")
    assert made.redact("web mail-alias on box and box.example.org, BOX") == "vm-1 vm-1 on host and host, host"


def test_the_longest_of_several_names_counts() -> None:
    """A name that is part of another one leaves nothing of it behind."""
    made = redactor("win", "win-10", "10-prod")
    assert made.redact("win, win-10, win-10-prod") == "vm-1, vm-2, vm-3"
    assert "prod" not in made.redact("win-10-prod")


def test_a_name_is_a_whole_word() -> None:
    """Not a part of one; marks and underscores end a word."""
    text = redactor("win10").redact("twin10 win100 win10.qcow2 domain-3-win10/monitor ns_win10 /win10/")
    assert text == "twin10 win100 vm-1.qcow2 domain-3-vm-1/monitor ns_vm-1 /vm-1/"


@pytest.mark.parametrize("name", ["a", "vm", "x1", "7", "100", "1920", "...", "   ", "é"])
def test_a_name_that_is_ordinary_text_does_not_destroy_it(name: str) -> None:
    """It goes only where it can be nothing else."""
    text = "a vm shows 1920x1080, size 100, 7 of 1920 bytes...   x1 é"
    made = redactor(name)
    assert made.redact(text) == text
    if name.strip():
        for meant in ("{}", "vm:{}", "vm:{}/1", "VM '{}' (pid 8)", "$ virsh send-key {} KEY_A", "domain-3-{}/monitor"):
            assert made.redact(meant.format(name)) == meant.format("vm-1")


@pytest.mark.parametrize("name", ["a.*b", "(x|y)+", "[abc]", "c++", r"\d\d\d", "^$^a", "{0}{1}"])
def test_a_name_is_no_regular_expression(name: str) -> None:
    """Letter for letter it goes, and what it would match stays."""
    assert redactor(name).redact(f"see {name}, axxb xyx abc ccc 123") == "see vm-1, axxb xyx abc ccc 123"


@pytest.mark.parametrize(
    "name", ["Büro 3", "машина", "仮想機械", "it's me", 'say "hi"', "a\tb\x1b[31m", "bad\udcffname", "back\\slash"]
)
def test_a_name_goes_in_every_spelling(name: str) -> None:
    """As it is, quoted by Python, JSON and the shell, and escaped."""
    spellings = (
        name,
        repr(name),
        json.dumps(name),
        shlex.quote(name),
        name.encode("unicode_escape", "surrogatepass").decode(),
    )
    for spelling in spellings:
        text = redactor(name).redact(f"<{spelling}>")
        assert "vm-1" in text
        assert not re.search(r"B.ro|машина|仮想機械|me|hi|31m|bad|name|back|slash|u[0-9a-f]{4}", text), text


def test_a_name_that_is_cut_short_goes_too() -> None:
    """Where a text ends in the middle of it, and as the kernel and libvirt cut names."""
    made = redactor("production-database-server")
    assert made.redact("held by production-datab…") == "held by vm-1…"
    assert made.redact("comm production-data") == "comm vm-1"
    assert made.redact("domain-1-production-database-/x") == "domain-1-vm-1/x"
    assert made.redact("this is pro") == "this is pro"


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        (f"{UUID} {UUID.upper()} {UUID.replace('-', '')}", "uuid-1 uuid-1 uuid-1"),
        (f"mdev_{UUID.replace('-', '_')}_0000 {UUID}", "mdev_uuid-1_0000 uuid-1"),
        ("52:54:00:12:34:56 and 52-54-00-12-34-56", "mac-1 and mac-1"),
        ("10.1.2.3:5900, 192.168.0.7, 10.1.2.3.", "ip-1:5900, ip-2, ip-1."),
        ("fe80::1 [2001:db8::5]:5900 fe80::1: refused fe80::1%eth0", "ip-1 [ip-2]:5900 ip-1: refused ip-3"),
        ("/home/alice/x.sock '/home/bob' /home/alice", "/home/user-1/path-1 '/home/user-2' /home/user-1"),
        ("/srv/acme/vm.sock: refused, /mnt/acme/vm.sock", "/srv/path-1: refused, /mnt/path-1"),
        ("Serial Number: 0324-AB; serial=77", "Serial Number: serial-1; serial=serial-2"),
    ],
)  # fmt: skip
def test_what_looks_like_an_address_or_a_home_goes(text: str, redacted: str) -> None:
    """Whether or not anybody told of it."""
    assert Redactor().redact(text) == redacted


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1:5900 0.0.0.0 ::1 ::",
        "0000:41:00.4 and 0000:41:00.0, 12:30:05, 10:20",
        "std::vector, i915::x, Linux 6.1.0-13-amd64, driver 535.161.07",
        "$ cat /proc/42/stack; /home/; serial console; docs/data/x /usr/lib/nvidia/sriov-manage /tmp/ /",
        "00ffffffffffff00" * 16,
    ],
)
def test_what_only_looks_a_little_so_stays(text: str) -> None:
    """This host's own addresses, PCI addresses, times and versions."""
    assert Redactor().redact(text) == text


def test_versions_are_no_addresses_where_one_says_so() -> None:
    """4.9.0.80 is an address anywhere else."""
    assert Redactor().redact("4.9.0.80", addresses=False) == "4.9.0.80"
    assert Redactor().redact("4.9.0.80") == "ip-1"


def test_a_device_of_libvirt_is_the_same_device() -> None:
    """``pci_0000_41_00_4`` is 0000:41:00.4."""
    assert redactor("0000:41:00.4").redact("pci_0000_41_00_4 0000:41:00.4 0000:41:00.0") == (
        "pci_device-1 device-1 0000:41:00.0"
    )


def test_no_placeholder_is_a_name() -> None:
    """Of a VM called vm-1 it cannot be known which is meant, so another word stands for it."""
    made = Redactor()
    made.hide("vm", "vm-1")
    made.hide("vm", "web")
    assert made.redact("vm-1 web") != made.redact("web vm-1")
    assert "web" not in made.redact("vm-1 web")


def test_one_that_is_not_active_leaves_all() -> None:
    """As --with-names asks."""
    made = Redactor(active=False)
    made.hide("vm", "win10")
    text = f"win10 {UUID} 10.1.2.3 /home/alice"
    assert made.redact(text) == text
    assert made.redact_all({"a": [text, 1]}) == {"a": [text, 1]}


def test_values_of_json_are_redacted_and_keys_stay() -> None:
    """Lists, objects and tuples; numbers and nothing are as they were."""
    value = {"win10": ["win10", ("win10", 10, None, True)], "x": {"y": "VM win10"}}
    assert redactor("win10").redact_all(value) == {"win10": ["vm-1", ["vm-1", 10, None, True]], "x": {"y": "VM vm-1"}}


WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NAMES = st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=6)


@given(names=NAMES, between=st.lists(WORDS, min_size=1, max_size=6))
@example(names=["a-b", "b-c"], between=[" "])
@example(names=["44cc0626"], between=["-1a2b-4c3d-8e4f-0123456789ab "])
@example(names=["10.0.0.5-desk"], between=[" "])
def test_no_name_survives_as_a_word(names: list[str], between: list[str]) -> None:
    """Whatever the names are and whatever stands around them."""
    text = "".join(f"{middle} {name} " for name in names for middle in between)
    made = redactor(*names)
    redacted = made.redact(text)
    for name in filter(is_plain_name, names):
        if not re.fullmatch(r"(vm|device|uuid|ip|mac|user|serial|path)(-\d+)?", name):
            assert not re.search(rf"(?<!\w){re.escape(name)}(?!\w)", redacted)
    assert redacted == made.redact(text)


@given(st.text(max_size=300))
def test_any_text_may_come(text: str) -> None:
    """None raises, and one without names is hardly ever touched."""
    assert isinstance(redactor("win10", UUID, "[").redact(text), str)


# --- EDID ---


def descriptor(tag: int, text: bytes) -> bytes:
    """Return a display descriptor."""
    return bytes([0, 0, 0, tag, 0]) + (text + b"\n").ljust(13)[:13]


def block(data: bytes) -> bytes:
    """Return 127 bytes and what makes their sum 0."""
    padded = data.ljust(127, b"\0")
    return padded + bytes([-sum(padded) % 256])


BASE = block(
    bytes.fromhex("00ffffffffffff00")
    + bytes.fromhex("10ac0102")
    + b"SERI"
    + bytes.fromhex("0a1f0104")
    + bytes(34)
    + bytes([0x64, 0x19, *[7] * 16])
    + descriptor(0xFC, b"DELL U2412M")
    + descriptor(0xFF, b"YMYH1234")
    + descriptor(0xFD, bytes(range(1, 12)))
    + b"\x02"
)
CTA = block(bytes([2, 3, 6, 0, 0x41, 0x10]) + descriptor(0xFE, b"ALICES DESK"))
DISPLAY_ID = block(bytes([0x70, 0x20, 20]) + b"SERIAL 4711")


def test_an_edid_loses_its_serial_numbers_and_texts() -> None:
    """Modes, limits and the maker stay, and it is as valid as before."""
    before = BASE + CTA + DISPLAY_ID
    after = blank_edid(before)
    assert len(after) == len(before)
    assert all(_edid(blob).valid for blob in (before, after))
    for text in (b"SERI", b"DELL", b"YMYH", b"ALICE", b"4711"):
        assert text in before
        assert text not in after
    assert after[8:12] == before[8:12]
    assert after[54:72] == before[54:72]
    assert after[108:126] == before[108:126]
    assert (after[128], after[256]) == (2, 0x70)


def test_an_edid_that_was_not_valid_does_not_become_so() -> None:
    """A wrong sum is evidence."""
    wrong = BASE[:-1] + bytes([BASE[-1] ^ 1])
    assert not _edid(wrong).valid
    assert not _edid(blank_edid(wrong)).valid


@given(st.binary(max_size=600))
def test_what_is_no_edid_is_left_out(blob: bytes) -> None:
    """Nobody knows where the names are in it."""
    assert blank_edid(b"\1" + blob) == b""
    signed = blank_edid(BASE[:8] + blob)
    assert len(signed) in (0, (len(blob) + 8) // 128 * 128)
    assert not signed or signed[12:16] == bytes(4)


def _edid(blob: bytes) -> Edid:
    return Edid(blob=blob, max_size=1024, max_xres=0, max_yres=0, link_up=True)
