"""docs/screen-is-black.md, from the table of causes. ``python -m mdevdisplay.diagnose.page`` prints it."""

from __future__ import annotations

import sys

from mdevdisplay.diagnose.causes import CAUSES, STEPS, Cause

__all__ = ["render"]

_HEAD = """\
# The screen is black

Ask first:

    mdevdisplay doctor vm:NAME

Its first line is the verdict, with the id of the cause in brackets. This page has every cause that there is, in the
order in which they are looked at, from the host to the pixels. Where several explain the same, the one further up
makes the verdict. Errors of the library and of the other commands carry the same ids.

It is made from the table in mdevdisplay/diagnose/causes.py; change it there and run
`python -m mdevdisplay.diagnose.page > docs/screen-is-black.md`.

Exit status: 0 the picture is seen, 3 nothing is displayed, 4 not permitted, 1 something is broken, 2 wrong usage.
Words in capitals stand for yours: `LOCATOR` for how the display is named, `VM`, `DEVICE`, `PID`.

What a platform needs before anything can be shown: [libvirt](libvirt.md), [Proxmox](proxmox.md),
[OpenStack](openstack.md), [KubeVirt](kubevirt.md). Rights: [permissions](permissions.md). Pixels that only a GPU can
read: [GPU import](gpu.md).
"""


class _Capitals(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return {"it": "LOCATOR", "picture": "1920x1080", "colour": "#000000", "count": "2", "seconds": "10"}.get(
            key, key.upper()
        )


def render() -> str:
    """Return the page."""
    parts = [_HEAD]
    for step, asks in STEPS.items():
        parts.append(f"## {step}: {asks}\n")
        parts += [_section(cause) for cause in CAUSES if cause.step == step]
    return "\n".join(parts)


def _section(cause: Cause) -> str:
    names = _Capitals()
    lines = [f"### {cause.id}\n", f"*{cause.verdict.format_map(names)}* (exit status {cause.ends.value})\n"]
    lines.append(f"{cause.meaning}\n")
    if cause.remedy:
        lines += [_remedy_line(line.format_map(names)) for line in cause.remedy]
        lines.append("")
    if cause.source:
        lines.append(f"Source: {cause.source}.\n")
    return "\n".join(lines)


def _remedy_line(line: str) -> str:
    return f"- `{line[2:]}`" if line.startswith("$ ") else f"- {line}"


if __name__ == "__main__":
    sys.stdout.write(render())
