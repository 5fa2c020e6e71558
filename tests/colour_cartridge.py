"""A cartridge of our own that shows the 64 colours of the console, to see how emulators show them.

Run as a script it prints the pixels of FCEUmm as JSON, decoded as for the agent: a process can hold
one core of stable-retro.
"""

import json
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

FRAMES_PER_COLOUR = 8
FRAMES = 66 * FRAMES_PER_COLOUR  # of the whole show, and a little more

# Registers of the console
_PPU_CONTROL, _PPU_MASK, _PPU_STATUS, _PPU_ADDRESS, _PPU_DATA = (
    0x2000,
    0x2001,
    0x2002,
    0x2006,
    0x2007,
)
_APU_FRAMES = 0x4017

_PROGRAM_START, _PROGRAM_BYTES, _PICTURE_BYTES = 0xC000, 0x4000, 0x2000
_COLOUR, _FRAME = 0, 1  # where the program keeps them, bytes of the zero page


def cartridge() -> bytes:
    """The file of the cartridge, in the form iNES: 16 KB of program, 8 KB of empty pictures.

    The picture is switched off, so that all of it is the backdrop, entry 0 of the palette. The
    program writes the next colour there every 8th frame, and keeps its number in byte 0 of the
    memory.
    """
    start = bytes([
        0x78,  # SEI: no interrupts
        0xD8,  # CLD: binary numbers
        0xA2, 0x40, 0x8E, *_address(_APU_FRAMES),  # LDX #$40, STX: not even from the sound
        0xA2, 0xFF, 0x9A,  # LDX #$FF, TXS: the stack
        0xE8,  # INX: 0
        0x8E, *_address(_PPU_CONTROL), 0x8E, *_address(_PPU_MASK),  # STX: no picture
        0x86, _COLOUR, 0x86, _FRAME,  # STX: the first colour, the first frame
    ])  # fmt: skip
    frame = bytes([
        0x2C, *_address(_PPU_STATUS), 0x10, 0xFB,  # BIT, BPL: wait until the picture is drawn
        *_write(_PPU_ADDRESS, 0x3F), *_write(_PPU_ADDRESS, 0x00),  # the palette
        0xA5, _COLOUR, 0x8D, *_address(_PPU_DATA),  # LDA, STA
        # While the address is one of the palette, the console shows what is there.
        *_write(_PPU_ADDRESS, 0x00), *_write(_PPU_ADDRESS, 0x00),
        0xE6, _FRAME, 0xA5, _FRAME, 0x29, FRAMES_PER_COLOUR - 1,  # INC, LDA, AND
        0xD0, 0x08,  # BNE: over the next line
        0xE6, _COLOUR, 0xA5, _COLOUR, 0x29, 0x3F, 0x85, _COLOUR,  # INC, LDA, AND #$3F, STA
        0x4C, *_address(_PROGRAM_START + len(start)),  # JMP: the next frame
    ])  # fmt: skip
    program = start + frame + bytes([0x40])  # RTI, for every interrupt
    interrupt = _address(_PROGRAM_START + len(program) - 1)
    vectors = [*interrupt, *_address(_PROGRAM_START), *interrupt]
    program = program.ljust(_PROGRAM_BYTES - len(vectors), b"\0") + bytes(vectors)
    header = b"NES\x1a" + bytes([1, 1]) + bytes(10)
    return header + program + bytes(_PICTURE_BYTES)


def _address(address: int) -> tuple[int, int]:
    """As the processor reads it: the lower byte first."""
    return address & 0xFF, address >> 8


def _write(register: int, value: int) -> tuple[int, ...]:
    """LDA #value, STA register."""
    return 0xA9, value, 0x8D, *_address(register)


def colours(frames: Iterable[tuple[int, np.ndarray]]) -> list[list[int]]:
    """The pixel of each of the 64 colours, from the middle of its frames.

    Args:
        frames: of each frame, byte 0 of the memory and the picture.
    """
    shown: list[list[np.ndarray]] = [[] for _ in range(64)]
    for colour, picture in frames:
        if len(shown[colour]) < FRAMES_PER_COLOUR:
            assert (picture == picture[0, 0]).all() or len(shown[colour]) < 2, "a mixed picture"
            shown[colour].append(picture[0, 0].tolist())
    return [pixels[FRAMES_PER_COLOUR // 2] for pixels in shown]


def _fceumm() -> list[list[int]]:
    import stable_retro

    from mario_rl.games import fceumm
    from mario_rl.games.fceumm_screen import FceummScreen, code_of

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "colours.nes"
        path.write_bytes(cartridge())
        core = stable_retro.RetroEmulator(str(path))
    state = core.get_state()
    memory_at = state.index(fceumm._MEMORY_CHUNK) + len(fceumm._MEMORY_CHUNK)
    screen = FceummScreen(core, stable_retro.get_core_path("Nes"))
    table = np.zeros((256, 3), dtype=np.uint8)
    for number, colour in enumerate(fceumm._COLOURS):
        table[code_of(number)] = list(bytes.fromhex(colour))

    def frames() -> Iterable[tuple[int, np.ndarray]]:
        for _ in range(FRAMES):
            core.step()
            yield core.get_state()[memory_at], table[screen.picture()]

    return colours(frames())


if __name__ == "__main__":
    json.dump(_fceumm(), sys.stdout)
