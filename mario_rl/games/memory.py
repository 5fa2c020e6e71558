"""The state of the game, read from the console's memory: the same place in every emulator."""

# Addresses, and what they hold
_FLOAT_STATE = 0x1D  # 0 while Mario stands or walks, 3 while he slides down a pole or climbs a vine
_HELD_BUTTONS = 0x0D  # A and B as the game last saw them
_A_BIT, _B_BIT = 0x80, 0x40
_ENEMY_TYPES = range(0x16, 0x1B)  # of the five on the screen
_BOWSER, _FLAG = 0x2D, 0x31  # two of the types; they end a stage
_PAGE, _LEFT = 0x6D, 0x86  # of Mario in the stage: pages of 256 pixels, and pixels
_SCREEN_PAGE, _SCREEN_LEFT = 0x071A, 0x071C  # of the screen in the stage, as of Mario
_TOP_PAGE, _TOP = 0xB5, 0x03B8  # of Mario on the screen; page 0 is above it, 2 below
_WARP_ZONE = 0x06D6  # not 0 when the screen has reached one
_LIVES = 0x075A  # runs 2, 1, 0, 255
_STAGE, _WORLD = 0x075C, 0x075F  # from 0
_MODE, _END_OF_WORLD = 0x0770, 2
_SCORE, _COINS, _CLOCK = (0x07DE, 6), (0x07ED, 2), (0x07F8, 3)  # first digit, number of digits

_AREA = 0x0750  # the map that is played; a stage has one or some
_MAZE = 0x06DA, 0x06D9  # how many parts of a maze were passed, and passed rightly
_SPEED = 0x57  # of Mario to the right, signed

_STANDING, _ON_A_POLE = 0, 3
_MARIO_MIDDLE = 8, 16  # from his left and his top, pixels


class Memory:
    """See the module. Each property reads the present state."""

    def __init__(self, ram: memoryview) -> None:
        """
        Args:
            ram: the console's 2048 bytes; always current.
        """
        self.ram = ram

    @property
    def world(self) -> int:
        """1 to 8."""
        return self.ram[_WORLD] + 1

    @property
    def stage(self) -> int:
        """1 to 4, in the world."""
        return self.ram[_STAGE] + 1

    @property
    def lives(self) -> int:
        """Lives left besides this one; 255 when the last is lost."""
        return self.ram[_LIVES]

    @property
    def x(self) -> int:
        """Pixels from the left of the stage to Mario; 0 where a maze has sent him back to beyond
        it."""
        return _from_left(self.ram[_PAGE], self.ram[_LEFT])

    @property
    def y(self) -> int:
        """Pixels from the bottom of the screen to Mario. Below it they start at 255 again."""
        y = 255 - self.ram[_TOP]
        return y + 255 if self.ram[_TOP_PAGE] == 0 else y

    @property
    def speed(self) -> int:
        """Of Mario to the right, in sixteenths of a pixel a frame. He walks at 24 and runs at
        40."""
        return (self.ram[_SPEED] + 128) % 256 - 128

    @property
    def area(self) -> int:
        """The map that is played. Pipes and vines lead from one to another."""
        return self.ram[_AREA]

    @property
    def maze(self) -> tuple[int, int]:
        """How many parts of a maze were passed since it began, and how many of them the right
        way."""
        return self.ram[_MAZE[0]], self.ram[_MAZE[1]]

    @property
    def float_state(self) -> int:
        """0 while Mario stands or walks, 1 in a jump, 2 in a fall, 3 on a pole or a vine."""
        return self.ram[_FLOAT_STATE]

    @property
    def mario_on_screen(self) -> tuple[int, int]:
        """Mario's middle: pixels from the left and from the top of the screen."""
        left = (self.ram[_LEFT] - self.ram[_SCREEN_LEFT]) % 256
        top = 256 * (self.ram[_TOP_PAGE] - 1) + self.ram[_TOP]
        return left + _MARIO_MIDDLE[0], top + _MARIO_MIDDLE[1]

    @property
    def screen_left(self) -> int:
        """Pixels from the left of the stage to the left of the screen."""
        return _from_left(self.ram[_SCREEN_PAGE], self.ram[_SCREEN_LEFT])

    @property
    def score(self) -> int:
        """Points, as the game shows them."""
        return self._number(*_SCORE)

    @property
    def coins(self) -> int:
        return self._number(*_COINS)

    @property
    def clock(self) -> int:
        """The time left, in the game's units of 0.4 s."""
        return self._number(*_CLOCK)

    def _number(self, address: int, digits: int) -> int:
        return int("".join(map(str, self.ram[address : address + digits])))

    @property
    def is_on_ground(self) -> bool:
        return self.ram[_FLOAT_STATE] == _STANDING

    @property
    def holds_a(self) -> bool:
        """Whether the game has seen A pressed, and not yet released."""
        return bool(self.ram[_HELD_BUTTONS] & _A_BIT)

    @property
    def holds_b(self) -> bool:
        return bool(self.ram[_HELD_BUTTONS] & _B_BIT)

    @property
    def sees_warp_zone(self) -> bool:
        """Whether the screen has reached a Warp Zone. It lies beyond the way to the flag."""
        return self.ram[_WARP_ZONE] != 0

    @property
    def has_flag(self) -> bool:
        """Whether Mario is at the flag or has the axe. In some castles it misses the axe."""
        if self.is_end_of_world:
            return True
        is_on_a_pole = self.ram[_FLOAT_STATE] == _ON_A_POLE
        return is_on_a_pole and any(
            self.ram[address] in (_BOWSER, _FLAG) for address in _ENEMY_TYPES
        )

    @property
    def is_won(self) -> bool:
        """Whether the last stage of the game is cleared."""
        return (self.world, self.stage) == (8, 4) and self.is_end_of_world

    @property
    def is_end_of_world(self) -> bool:
        """Whether Mario has the axe of a castle."""
        return self.ram[_MODE] == _END_OF_WORLD


def _from_left(page: int, left: int) -> int:
    """Pixels from the left of the stage. A maze sends Mario back by four pages, at worst from the
    third one, which makes 255 of it."""
    return 256 * page + left if page < 128 else 0
