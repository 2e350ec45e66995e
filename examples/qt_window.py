#!/usr/bin/env python3
"""Show a display in a Qt window, which paints only what changed.

    pip install PySide6-Essentials
    qt_window.py vm:win10 --cursor

The display is read by a thread of the stream's; Qt's loop watches the stream's descriptor and so never waits for a
driver. XR24, which nearly every guest shows, is what Qt calls RGB32: its pixels are painted from where they are.
"""

from __future__ import annotations

import argparse
import signal
import sys

from PySide6.QtCore import QRect, QSocketNotifier, Qt
from PySide6.QtGui import QCloseEvent, QImage, QPainter, QPaintEvent
from PySide6.QtWidgets import QApplication, QWidget

import mdevdisplay
from mdevdisplay.errors import MdevDisplayError, TimedOut
from mdevdisplay.stream import FrameStream

XR24 = mdevdisplay.fourcc("XR24")


class Window(QWidget):
    """One display, pixel for pixel; a word where there is no picture."""

    def __init__(self, stream: FrameStream, title: str, *, cursor: bool) -> None:
        super().__init__()
        self._stream = stream
        self._cursor = cursor
        self._frame: mdevdisplay.Frame | None = None
        self._image = QImage()
        self._word = "waiting for a picture"
        self.setWindowTitle(f"{title} - mdevdisplay")
        self.setAttribute(Qt.WidgetAttribute.WA_OpaquePaintEvent)  # what is not painted anew stays
        self.setFixedSize(640, 480)
        self._notifier = QSocketNotifier(stream.fileno(), QSocketNotifier.Type.Read)
        self._notifier.activated.connect(self._look)

    def _look(self) -> None:
        """Take the newest picture."""
        try:
            picture = self._stream.latest()
        except TimedOut:  # the driver is asked again; the last picture stays
            pass
        except MdevDisplayError as error:  # there will be no more
            self._notifier.setEnabled(False)
            self._say(str(error))
        else:
            if isinstance(picture, mdevdisplay.Frame):
                self._show(picture)
            elif picture is not None:
                self._say("nothing is displayed" if picture.error is None else str(picture.error))

    def _show(self, frame: mdevdisplay.Frame) -> None:
        before, self._frame = self._frame, frame
        plain = not self._cursor and frame.surface.fourcc == XR24 and frame.raw.shape == (frame.height, frame.width, 4)
        try:
            pixels = frame.raw if plain else frame.pixels  # both stay as they are as long as the frame is kept
        except MdevDisplayError as error:  # a format that nobody decodes; the next mode may have another
            self._say(str(error))
            return
        self._image = QImage(pixels.data, frame.width, frame.height, 4 * frame.width, QImage.Format.Format_RGB32)
        self.setFixedSize(frame.width, frame.height)
        if before is None:
            self.update()
        for rect in frame.damage:  # that of pictures which Qt was too slow to take is in it
            self.update(QRect(rect.x, rect.y, rect.width, rect.height))

    def _say(self, word: str) -> None:
        self._image, self._frame = QImage(), None
        self._word = word
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802 - Qt's name
        with QPainter(self) as painter:
            if self._image.isNull():
                painter.fillRect(self.rect(), Qt.GlobalColor.black)
                painter.setPen(Qt.GlobalColor.white)
                painter.drawText(self.rect(), Qt.AlignmentFlag.AlignCenter | Qt.TextFlag.TextWordWrap, self._word)
                return
            painter.drawImage(event.rect(), self._image, event.rect())  # Qt clips it to what needs it

    def closeEvent(self, event: QCloseEvent) -> None:  # noqa: N802 - Qt's name
        self._notifier.setEnabled(False)  # before the descriptor is closed
        self._image, self._frame = QImage(), None
        event.accept()


def main() -> int:
    parser = argparse.ArgumentParser(description="Show a display in a Qt window.")
    parser.add_argument("locator", help="as for mdevdisplay: vm:NAME, a UUID")
    parser.add_argument("--cursor", action="store_true", help="draw the guest's cursor")
    parser.add_argument("--max-fps", type=float, default=30.0, help="how often to look at the display, at most")
    arguments = parser.parse_args()
    app = QApplication(sys.argv[:1])
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl+C: Python's own handler waits for Qt to come back
    try:
        with (
            mdevdisplay.open(arguments.locator, timeout=5, isolated=None) as display,
            display.frames(max_fps=arguments.max_fps, cursor=arguments.cursor) as stream,
        ):
            window = Window(stream, display.locator, cursor=arguments.cursor)
            window.show()
            return app.exec()
    except MdevDisplayError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
