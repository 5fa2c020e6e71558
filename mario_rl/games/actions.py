"""The actions of an agent: sets of buttons that are held together.

The sets are those of gym-super-mario-bros. Models and checkpoints store the numbers of actions, so
their order must stay.
"""

BUTTON_BITS = {"NOOP": 0, "A": 1, "B": 2, "up": 16, "down": 32, "left": 64, "right": 128}
_ACTIONS = (
    "NOOP", "right", "right+A", "right+B", "right+A+B", "A", "left",
    "left+A", "left+B", "left+A+B", "down", "up",
)  # fmt: skip
_NUM_ACTIONS = {"right": 5, "simple": 7, "complex": 12}  # how many of them, from the first


def action_names(action_set: str) -> list[str]:
    """The names of an action set's actions, such as "right+A", in the order of their numbers."""
    return list(_ACTIONS[: _NUM_ACTIONS[action_set]])


def button_bytes(action_set: str) -> list[int]:
    """The buttons of each action as the bits of a byte, in the order in which the console's
    controller sends them."""
    return [
        sum(BUTTON_BITS[button] for button in name.split("+")) for name in action_names(action_set)
    ]
