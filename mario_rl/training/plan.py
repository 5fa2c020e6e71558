"""What a run would be, told without starting it."""

from collections.abc import Iterator, Mapping

from mario_rl.config import Config, settings
from mario_rl.machine import available_memory_bytes
from mario_rl.replay.prioritized import PrioritizedReplay
from mario_rl.settings import flag_of
from mario_rl.training.decisions import decided, measured_steps_per_s
from mario_rl.training.guide import read_demonstrations

# Of the speed that is measured without a replay, a policy and records
_SHARE_IN_TRAINING = 0.9


def describe_plan(config: Config, sources: Mapping[str, str]) -> Iterator[str]:
    """Lines about the settings, where they come from, the memory and the time.

    Args:
        sources: where settings come from that are not the default, by their names.

    Raises:
        UserError: if this machine cannot run it.
    """
    final = decided(config)
    read_demonstrations(final)
    speed = _SHARE_IN_TRAINING * measured_steps_per_s(final)
    values, asked = final.flat(), config.flat()
    for _, item in settings():
        value = values[item.name]
        source = sources.get(item.name, "default")
        if value != asked[item.name]:
            source = f"{source}, decided on this machine"
        yield f"{flag_of(item.name)} {'no limit' if value is None else value}  ({source})"
    replay = PrioritizedReplay.required_bytes(final.replay, final.env.frame_shape)
    free = available_memory_bytes()
    yield f"memory: {replay / 2**30:.2f} GiB for the replay of {free / 2**30:.1f} GiB free"
    yield f"speed: about {speed:.0f} env steps/s without evaluations"
    if final.run.max_steps is not None:
        hours = final.run.max_steps / speed / 3600
        yield f"time: about {hours:.1f} hours for {final.run.max_steps:,} env steps"
    else:
        yield f"time: unknown, as the budget is in episodes ({final.run.num_episodes:,})"
