"""The whole picture of the emulator FCEUmm, as numbers of colours.

FCEUmm is a libretro core: it asks the program around it for its options. stable-retro answers none
of these questions, and the defaults cut 8 pixels off each side of the picture, in which agents of
nes-py see the next enemy first, and show two of the console's colours alike (docs/emulators.md).
Here the core asks us instead. The names below are those of libretro.h.
"""

import ctypes
import operator
import struct
from functools import partial
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    import stable_retro

_SHAPE = 240, 256

_GET_VARIABLE, _GET_VARIABLE_UPDATE = 15, 17  # RETRO_ENVIRONMENT_...

_OPTIONS = {
    b"fceumm_overscan": b"disabled",  # here "enabled" means: cut
    b"fceumm_palette": b"raw",  # a colour is a code of its number
}


class _Variable(ctypes.Structure):
    _fields_ = (("key", ctypes.c_char_p), ("value", ctypes.c_char_p))


_Environment = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_uint, ctypes.c_void_p)
_VideoRefresh = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint, ctypes.c_size_t
)

# What the core passes with every picture: address, width, height, bytes of a row
_PICTURE = struct.Struct("=QIIQ")


class FceummScreen:
    """See the module."""

    def __init__(self, core: "stable_retro.RetroEmulator", path: str) -> None:
        """Set the options. That takes a frame: load a state before you go on.

        Args:
            core: the only core of this process, with a game in it.
            path: of its library.

        Raises:
            RuntimeError: if it does not show the whole picture.
        """
        self._has_new_options = True
        self._newest = bytearray(_PICTURE.size)  # where the core keeps the picture
        self._known = b""
        # No Python code runs while a frame is emulated: what it raises would be lost, and a Ctrl-C
        # that comes then is raised in it. The core would crash if the callbacks were freed.
        self._video_refresh = _VideoRefresh(partial(_PICTURE.pack_into, self._newest, 0))
        self._environment = _Environment(self._answer)
        self._no_answer = _Environment(operator.is_)  # a question and an address: False
        # It is loaded already: this is the same one.
        library = ctypes.CDLL(path)
        library.retro_set_environment(self._environment)
        library.retro_set_video_refresh(self._video_refresh)
        core.step()
        library.retro_set_environment(self._no_answer)
        height, width = _SHAPE
        if (shown := _PICTURE.unpack(self._newest)[1:]) != (width, height, 2 * width):
            raise RuntimeError(f"this version of FCEUmm has another picture: {shown}")

    def _answer(self, question: int, data: int) -> bool:
        """Called by the core. Returns whether the answer is in `data`."""
        if question == _GET_VARIABLE_UPDATE:
            ctypes.c_bool.from_address(data).value = self._has_new_options
            self._has_new_options = False
            return True
        if question == _GET_VARIABLE:
            variable = _Variable.from_address(data)
            variable.value = _OPTIONS.get(variable.key)
            return variable.value is not None
        return False

    def picture(self) -> np.ndarray:
        """A copy of the picture of the frame that was emulated last: the code of each colour, uint8
        [240, 256], as `code_of` gives it."""
        if self._newest != self._known:  # at first, and hardly ever after
            self._known = bytes(self._newest)
            address, width, height, _ = _PICTURE.unpack(self._known)
            pixels = (ctypes.c_uint8 * (2 * width * height)).from_address(address)
            self._bytes = np.ctypeslib.as_array(pixels).reshape(height, width, 2)
        # The higher byte of a RGB565 pixel tells the 64 colours apart.
        return cv2.extractChannel(self._bytes, 1)


def code_of(colour: int) -> int:
    """The code of one of the console's 64 colours in a picture: the palette "raw" is made so."""
    red, green = colour % 16 * 255 // 15, colour // 16 * 255 // 3
    return (red >> 3 << 11 | green >> 2 << 5) >> 8
