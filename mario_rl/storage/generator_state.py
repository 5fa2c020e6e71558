"""The state of a random generator of NumPy, as it is in files."""

from dataclasses import asdict, dataclass
from typing import Annotated, Literal

import numpy as np

from mario_rl.fields import Within

_Word128 = Annotated[int, Within(f"[0, {2**128})")]


@dataclass(frozen=True)
class PCG64Words:
    """The words of the generator proper."""

    state: _Word128
    # With an even one the generator may give the same number for ever, and NumPy never returns.
    inc: Annotated[int, Within(f"[0, {2**128})", odd=True)]


@dataclass(frozen=True)
class GeneratorState:
    """`np.random.Generator.bit_generator.state` of `np.random.default_rng`."""

    bit_generator: Literal["PCG64"]
    state: PCG64Words
    has_uint32: Annotated[int, Within("[0, 1]")]
    uinteger: Annotated[int, Within(f"[0, {2**32})")]

    @classmethod
    def of(cls, rng: np.random.Generator) -> "GeneratorState":
        state = rng.bit_generator.state
        return cls(**{**state, "state": PCG64Words(**state["state"])})

    def restore(self, rng: np.random.Generator) -> None:
        rng.bit_generator.state = asdict(self)
