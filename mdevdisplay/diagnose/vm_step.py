"""The VM's side: whether it runs, and which of its cards its consoles show."""

from __future__ import annotations

from mdevdisplay.diagnose.examination import Examination
from mdevdisplay.diagnose.subject import Subject
from mdevdisplay.gpu.render_nodes import render_nodes
from mdevdisplay.host.console import Console, VgpuSetting, console_of
from mdevdisplay.host.holders import Holder
from mdevdisplay.host.processes import Process
from mdevdisplay.host.root import HostRoot
from mdevdisplay.host.running import running_state

__all__ = ["examine_consoles", "examine_vm"]

_BY_RENDER_NODE = ("egl-headless", "spice", "spice-app", "dbus")
"""The viewers that draw on a render node; a window draws with its desktop's OpenGL."""
_SECONDS = 1.0
"""What asking for the VM's state may take."""
_BY_STATE = {
    "paused": "vm-paused",
    "migrating": "vm-migrating",
    "suspended": "guest-asleep",
    "stopped": "vm-stopped",
    "crashed": "vm-crashed",
    "starting": "vm-starting",
    "shutdown": "vm-shut-down",
}


def examine_vm(exam: Examination, subject: Subject, root: HostRoot) -> Console | None:
    """Ask whether the VM runs; return what its command line says of its consoles."""
    holder = subject.holder
    if holder is None or not holder.vm.kind:
        return None
    console = _console(holder, root)
    state = running_state(root, holder, console=console, seconds=_SECONDS)
    for text in state.left_out:
        exam.leave_out(text)
    told = f"{state.state}, says {state.told_by}" if state.told_by else state.state
    evidence = f"{told}: {state.detail}" if state.detail else told
    if state.state in _BY_STATE:
        exam.found(_BY_STATE[state.state], evidence)
    elif state.state == "unknown":
        exam.ok("vm", "whether it runs is not known")
    else:
        exam.ok("vm", evidence)
    return console


def examine_consoles(
    exam: Examination, subject: Subject, root: HostRoot, console: Console | None, *, by_dmabuf: bool
) -> None:
    """Say where QEMU's consoles look; ``by_dmabuf``: the vGPU hands dma-bufs out, which QEMU shows by OpenGL alone."""
    if console is None:
        return
    name = subject.device.identity.name if subject.device is not None else ""
    setting = _setting(console, name)
    viewers = ", ".join(viewer.kind + (" with OpenGL" if viewer.gl else "") for viewer in console.viewers) or "none"
    exam.ok("vm", f"QEMU's viewers: {viewers}; its other video cards: {', '.join(console.cards) or 'none'}")
    if console.ramfb or (setting is not None and setting.ramfb):
        told = "the VM has ramfb, on which firmware and boot loaders draw"
        if exam.seen == "nothing-displayed":
            exam.found("only-ramfb", told)
        else:
            exam.ok("vm", told)
    if console.cards:
        exam.found("second-video-device", f"beside the vGPU the VM has {', '.join(console.cards)}")
    if setting is None:
        return
    if setting.display == "off":
        exam.found("display-off", f"QEMU has {setting.driver} of {setting.name} with display=off, as by default")
        return
    if by_dmabuf:
        _examine_opengl(exam, subject, root, console, setting)


def _examine_opengl(
    exam: Examination, subject: Subject, root: HostRoot, console: Console, setting: VgpuSetting
) -> None:
    drawing = [viewer for viewer in console.viewers if viewer.gl or viewer.kind == "egl-headless"]
    headless = [viewer for viewer in drawing if viewer.kind in _BY_RENDER_NODE]
    if not drawing:
        exam.found(
            "no-egl-headless", f"QEMU has display={setting.display} for {setting.name} and no viewer with OpenGL"
        )
        return
    parent = subject.device.identity.parent if subject.device is not None else ""
    nodes = render_nodes(root)
    own = next((node for node in nodes if node.address == parent), None)
    if own is None:
        return
    for viewer in headless:
        used = _node_name(viewer.rendernode, root)
        if not used and len(nodes) > 1:
            # QEMU takes the first that readdir(3) gives (ui/egl-helpers.c, qemu_egl_rendernode_open)
            exam.ok("vm", f"{viewer.kind} draws with whichever render node QEMU found first; the vGPU's is {own.name}")
        elif used not in ("", own.name):
            exam.found(
                "wrong-render-node",
                f"{viewer.kind} draws with rendernode={viewer.rendernode}; the vGPU is a part of {parent}, which is "
                f"/dev/dri/{own.name}",
            )


def _node_name(path: str, root: HostRoot) -> str:
    """Return the name of a render node's path, which may be a link as below /dev/dri/by-path."""
    if not path:
        return ""
    try:
        return (root.path / path.lstrip("/")).resolve().name
    except (OSError, RuntimeError, ValueError):
        return path.rpartition("/")[2]


def _setting(console: Console, name: str) -> VgpuSetting | None:
    for setting in console.vgpus:
        if setting.name == name:
            return setting
    return console.vgpus[0] if len(console.vgpus) == 1 and not name else None


def _console(holder: Holder, root: HostRoot) -> Console | None:
    try:
        with Process(root.proc, holder.pid) as process:
            return console_of(process)
    except OSError:
        return None
