"""Runs examples/qt_window.py with somebody in front of it, who looks at the window and then closes it.

    qt_user.py FILE TIMES light|dark EXAMPLE ARGUMENTS…

The user waits until the window has been painted so often and has a picture, or has had none for a while, now and then
holds Qt up, saves to FILE what is on the screen and how many pixels were painted each time, and closes the window.
"""

from __future__ import annotations

import runpy
import sys
import time
from collections.abc import Iterable
from typing import cast

import numpy as np
import numpy.typing as npt
from PySide6.QtCore import QEvent, QObject, QRect, QTimer
from PySide6.QtGui import QImage, QPaintEvent, QRegion
from PySide6.QtWidgets import QApplication, QWidget


class User(QObject):
    def __init__(self, file: str, times: int, *, light: bool) -> None:
        super().__init__()
        self.file = file
        self.times = times
        self.light = light
        self.painted: list[int] = []
        self.turns = 0
        (self.window,) = QApplication.topLevelWidgets()
        self.window.installEventFilter(self)
        self.timer = QTimer(self, interval=10)
        self.timer.timeout.connect(self.look)
        self.timer.start()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 - Qt's name
        if isinstance(event, QPaintEvent):
            self.painted.append(area(event.region()))
        return False

    def look(self) -> None:
        self.turns += 1
        if self.turns % 20 == 0:
            time.sleep(0.5)
        elif len(self.painted) >= self.times and (self.light or self.turns > 80):
            screen = on_screen(self.window)
            if (screen[..., :3].mean() > 20) == self.light:
                self.timer.stop()
                np.savez(self.file, screen=screen, painted=self.painted)
                self.window.close()


def area(region: QRegion) -> int:
    rects = cast("Iterable[QRect]", region)  # its stubs do not say so
    return sum(rect.width() * rect.height() for rect in rects)


def on_screen(window: QWidget) -> npt.NDArray[np.uint8]:
    """What was painted and is still there, B, G, R, A; QWidget.grab() would paint it anew."""
    image = window.screen().grabWindow(window.winId()).toImage().convertToFormat(QImage.Format.Format_RGB32)
    rows = np.frombuffer(image.constBits(), np.uint8).reshape(image.height(), image.bytesPerLine())
    return rows[:, : 4 * image.width()].reshape(image.height(), image.width(), 4).copy()


def main() -> None:
    file, times, light = sys.argv[1:4]
    sys.argv = sys.argv[4:]
    run = QApplication.exec

    def with_user(_: QApplication) -> int:
        user = User(file, int(times), light=light == "light")
        status = run()
        user.deleteLater()
        return status

    QApplication.exec = with_user  # type: ignore[method-assign,assignment]
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
