"""The program's parts on the GPU: do they compute there what they compute on a CPU?"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from benchmarks.gpu_check.check import CONFIG, Check, Outcome, name_of, new_batch, new_learner
from mario_rl.agent.cuda_graph import WARM_UPS
from mario_rl.agent.dqn import DQN
from mario_rl.device import frames_device, limit_memory, shortage, trunk_dtype
from mario_rl.replay.n_step import Transitions
from mario_rl.replay.prioritized import Batch, PrioritizedReplay

_TOLERANCE = 0.02  # as a share of the numbers: bfloat16 and TF32 round to 3 digits
# Of weights, as a share of how far they moved: kernels add in any order, and Adam turns the least
# difference of a gradient near zero into a whole step.
_MAX_DEVIATION = 0.2


def networks(check: Check) -> Iterator[Outcome]:
    """The device computes what the CPU does in float32."""
    batch = new_batch(check.sizes, torch.device("cpu"))
    exact = new_learner(torch.device("cpu"), torch.float32)
    q_values = exact.online_net.q_values(batch.obs)
    td_errors = exact.update(batch).td_errors
    for dtype in (torch.float32, torch.bfloat16):
        learner = new_learner(check.device, dtype)
        q_error = _share(learner.online_net.q_values(batch.obs) - q_values, q_values)
        td_error = _share(learner.update(batch).td_errors - td_errors, td_errors)
        yield Outcome(
            f"networks in {name_of(dtype)}",
            max(q_error, td_error) < _TOLERANCE,
            f"Q-values are {q_error:.1e}, TD errors {td_error:.1e} off the CPU's",
            {"q_error": q_error, "td_error": td_error},
        )


def frames(check: Check) -> Iterator[Outcome]:
    """The replay draws from the device's memory what it draws from main memory."""
    config = replace(CONFIG.replay, replay_capacity=check.sizes.slots)
    stores = (None, check.device)
    frame_shape = CONFIG.env.frame_shape
    replays = [PrioritizedReplay(config, 8, frame_shape, place) for place in stores]
    rng = np.random.default_rng(0)
    columns = (np.ones(8, dtype) for dtype in (np.uint8, np.float32, np.float32, np.uint8))
    actions, returns, discounts, steps = columns
    for row in range(replays[0].ring.num_rows + 10):  # it has begun to overwrite
        pixels = rng.integers(256, size=(8, *frame_shape), dtype=np.uint8)
        for replay in replays:
            before = replay.ring.newest_slots()
            replay.append_frames(pixels, np.full(8, row == 0))
            if row > 0:
                replay.add(Transitions(before, actions, returns, discounts, steps))
    batches = [replay.sample(256, 0.4, np.random.default_rng(1)) for replay in replays]
    same = all(
        np.array_equal(*(_array(getattr(batch, name)) for batch in batches))  # type: ignore[arg-type]
        for name in Batch._fields
    )
    rows = replays[0].ring.rows
    same &= all(
        np.array_equal(*pair)
        for pair in zip(*(replay.ring.frames_of(rows) for replay in replays), strict=True)
    )
    yield Outcome("replay's frames", same, "batches are those of frames in main memory")
    required = PrioritizedReplay.required_bytes(CONFIG.replay, CONFIG.env.frame_shape)
    place = frames_device(check.device, CONFIG.run.gpu_memory_fraction, required)
    yield Outcome(
        "place of the default replay",
        (place is not None) == (check.device.type == "cuda"),
        f"{required / 2**30:.2f} GiB {'in main memory' if place is None else 'on the GPU'}",
    )


def memory(check: Check) -> Iterator[Outcome]:
    """PyTorch takes no more than its share, and the error becomes a line for the user."""
    total = torch.cuda.get_device_properties(check.device).total_memory
    torch.cuda.empty_cache()
    allowed = torch.cuda.memory_reserved(check.device) + (256 << 20)
    try:
        limit_memory(check.device, allowed / total)
        pieces = [torch.empty(128 << 20, dtype=torch.uint8, device=check.device)]
        pieces.append(torch.empty(256 << 20, dtype=torch.uint8, device=check.device))
        error: Exception | None = None
    except torch.OutOfMemoryError as raised:
        error = raised
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    line = shortage(error) if error else "all of it could be allocated"
    yield Outcome("memory fraction", isinstance(line, Exception), f"384 of 256 MiB: {line}")


def graph(check: Check) -> Iterator[Outcome]:
    """An update that is captured beside a thread that acts computes what it did before."""
    dtype = trunk_dtype(CONFIG.run.precision, check.device)
    # A power of two is the same number in float32, which the rate of a captured update has.
    exact = CONFIG.replaced({"learning_rate": 2.0**-13})
    names = ("dqn", "dqn", "captured")
    learners = [new_learner(check.device, dtype, exact, name) for name in names]
    start = _weights(learners[0])
    batch = new_batch(check.sizes, check.device)
    for i in range(WARM_UPS + 3 + check.sizes.updates // 5):
        for learner in learners:
            learner.begin_update(batch._replace(obs=torch.as_tensor(batch.obs).roll(i, dims=0)))
            for _ in range(check.sizes.updates):
                learner.acting_net.q_values(batch.obs)
            learner.fetch_update()
            if i == WARM_UPS + 1:  # in the memory that the graph reads
                learner.sync_target()
    eager, twin, captured = (_weights(learner) for learner in learners)
    noise, error = (((eager - x).norm() / (eager - start).norm()).item() for x in (twin, captured))
    yield Outcome(
        "update as a CUDA graph",
        error < _MAX_DEVIATION,
        f"the weights are {error:.1e} of their way off; those of two equal learners {noise:.1e}",
        {"deviation": error, "noise": noise},
    )


def _share(error: np.ndarray, of: np.ndarray) -> float:
    return float(np.linalg.norm(error) / np.linalg.norm(of))


def _weights(learner: DQN) -> torch.Tensor:
    networks = (learner.online_net, learner.average_net)
    return torch.cat([p.detach().flatten() for network in networks for p in network.parameters()])


def _array(values: Any) -> np.ndarray:
    return values.cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
