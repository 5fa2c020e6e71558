"""The state of Adam (`torch.optim.Adam.state_dict()`) as it is in files.

PyTorch takes over almost anything, and fails at the first update.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch

from mario_rl.fields import Array, Positive, Within
from mario_rl.storage.plain import field_kinds, from_plain


@dataclass(frozen=True)
class Moments:
    """What Adam keeps of a parameter."""

    step: Annotated[torch.Tensor, Array("float32", "", "[0, inf)")]  # updates
    exp_avg: Annotated[torch.Tensor, Array("float32", "parameter")]  # of the gradient
    exp_avg_sq: Annotated[torch.Tensor, Array("float32", "parameter", "[0, inf)")]


Beta = Annotated[float, Within("[0, 1)")]


@dataclass(frozen=True)
class Group:
    """The settings of Adam; those that are not numbers are as `DQN` sets them."""

    params: list[int]
    lr: Positive
    betas: tuple[Beta, Beta]
    eps: Positive
    weight_decay: Positive
    amsgrad: Literal[False] = False
    maximize: Literal[False] = False
    foreach: Literal[None, False] = None
    capturable: Literal[False] = False
    differentiable: Literal[False] = False
    fused: bool | None = None
    decoupled_weight_decay: Literal[False] = False


@dataclass(frozen=True)
class AdamState:
    """The whole state."""

    param_groups: list[dict[str, Any]]  # one `Group`
    state: dict[int, dict[str, Any]]  # the `Moments` of each parameter, once it was updated


def adam_state(optimizer: torch.optim.Adam) -> dict[str, Any]:
    """The state as it is in files: the same for an optimizer that a CUDA graph can capture."""
    state = optimizer.state_dict()
    (group,) = state["param_groups"]
    return {**state, "param_groups": [{**group, "lr": float(group["lr"]), "capturable": False}]}


def load_adam_state(optimizer: torch.optim.Adam, state: dict[str, Any], where: str) -> None:
    """Take over a state.

    The tensors become the optimizer's own, each in the memory layout of its parameter. The fused
    Adam reads the moments in that order, whatever their strides are, and writes beyond the end of
    a moment that is smaller in memory.

    Args:
        where: the name of the state's field.

    Raises:
        ValueError: names the field that the optimizer could not use.
    """
    checked: AdamState = from_plain(AdamState, state, where)
    (own,) = optimizer.param_groups
    parameters = own["params"]
    if len(checked.param_groups) != 1:
        raise ValueError(f"{where}.param_groups has {len(checked.param_groups)} items, not one")
    # Another version of PyTorch may have settings that `Group` does not know.
    more = own.keys() - field_kinds(Group)
    settings = {key: item for key, item in checked.param_groups[0].items() if key not in more}
    group: Group = from_plain(Group, settings, f"{where}.param_groups[0]")
    if group.params != list(range(len(parameters))):
        raise ValueError(f"{where}.param_groups[0].params is not 0 to {len(parameters) - 1}")
    for number, moments in checked.state.items():
        if number not in range(len(parameters)):
            raise ValueError(f"{where}.state.{number} is of no parameter")
        sizes = {"parameter": tuple(parameters[number].shape)}
        from_plain(Moments, moments, f"{where}.state.{number}", sizes)
    if own["capturable"]:
        rate = torch.tensor(group.lr, device=own["lr"].device)
        settings = {**state["param_groups"][0], "lr": rate, "capturable": True, "fused": True}
        state = {**state, "param_groups": [settings]}
    optimizer.load_state_dict(state)
    for parameter, moments in optimizer.state.items():
        for name in ("exp_avg", "exp_avg_sq"):
            moments[name] = torch.empty_like(parameter).copy_(moments[name])
        moments["step"] = moments["step"].clone()
