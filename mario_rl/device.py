"""The device of the networks, their precision, and how much of the machine they may use."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from mario_rl.config import RunConfig
from mario_rl.errors import UserError
from mario_rl.machine import available_cores, cpu_has_fast_bfloat16

_NETWORKS_BYTES = 2 << 30  # networks, optimizer, activations and what CUDA itself takes


def prepare_device(config: RunConfig) -> tuple[torch.device, str]:
    """The device of a run, made ready as the config says, and a line that tells so. Call this
    before it computes anything.

    Raises:
        UserError: if this machine has no such device.
    """
    device = choose_device(config.device)
    if config.deterministic:
        make_deterministic()
    return device, limit_memory(device, config.gpu_memory_fraction)


def choose_device(name: str) -> torch.device:
    """The device called auto, cpu, cuda or mps; auto takes the first of cuda, mps, cpu that exists.

    Raises:
        UserError: if this machine has no such device.
    """
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(kind for kind, present in available.items() if present)
    if not available[name]:
        raise UserError(f"--device {name}: PyTorch sees no such device here; use --device cpu")
    return torch.device(name)


def trunk_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The precision of the convolutions, given as auto, float32 or bfloat16; auto takes bfloat16
    if the hardware is faster in it."""
    fast = (
        cpu_has_fast_bfloat16()
        if device.type == "cpu"
        else (device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False))
    )
    if precision == "bfloat16" or (precision == "auto" and fast):
        return torch.bfloat16
    return torch.float32


def leave_cores_to_the_learner() -> None:
    """Let PyTorch use one core in this thread, which only chooses actions. Call this before it
    computes anything.

    If this thread had helpers as well, there would be more threads than cores, and OpenMP would let
    each helper sleep after every operation: an update would take half as long again
    (docs/performance.md).
    """
    use_threads(1)


def use_threads(threads: int) -> None:
    """Let PyTorch use this many threads in the thread that calls this."""
    torch.set_num_threads(threads)
    torch.get_num_threads()  # or the next call for another thread would count here, too


def leave_cores_to_the_games() -> None:
    """Let PyTorch use half the cores. On a CPU an update costs about as much as its games, and
    with more threads than cores they would wait for each other."""
    torch.set_num_threads(max(1, min(torch.get_num_threads(), available_cores() // 2)))


def make_deterministic() -> None:
    """Make PyTorch use GPU kernels that compute the same bits every time. Call this before the
    first kernel runs.

    An operation that has no such kernel raises RuntimeError.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # as cuBLAS documents
    torch.use_deterministic_algorithms(True)


def frames_device(device: torch.device, fraction: float, replay_bytes: int) -> torch.device | None:
    """The device for the replay's frames: the GPU if they fit there beside the networks. None is
    main memory."""
    if device.type != "cuda":
        return None
    allowed = fraction * torch.cuda.get_device_properties(device).total_memory
    return device if replay_bytes + _NETWORKS_BYTES <= allowed else None


def limit_memory(device: torch.device, fraction: float) -> str:
    """Let this process take at most `fraction` of the device's memory; returns a line that says so.

    An allocation beyond it raises torch.OutOfMemoryError, as if the GPU were smaller.
    """
    if device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(fraction)
        total = torch.cuda.get_device_properties(device).total_memory
        name = torch.cuda.get_device_name(device)
        return f"device: {name}, at most {fraction:.0%} of {total / 2**30:.1f} GiB"
    if device.type == "mps":
        torch.mps.set_per_process_memory_fraction(fraction)
        total = torch.mps.recommended_max_memory()
        return f"device: Apple GPU, at most {fraction:.0%} of {total / 2**30:.1f} GiB"
    return "device: CPU (--gpu-memory-fraction has no effect here)"


def shortage(error: Exception) -> UserError | None:
    """What to tell the user if an error of PyTorch, NumPy or Python says that memory or threads are
    short; None for other errors. PyTorch has a type only for the memory of CUDA."""
    text = str(error)
    if isinstance(error, torch.OutOfMemoryError) or "MPS backend out of memory" in text:
        return UserError(
            "the GPU's memory limit is reached: lower --batch-size, raise --gpu-memory-fraction, "
            "or free the GPU of other programs"
        )
    if isinstance(error, MemoryError) or "DefaultCPUAllocator" in text:
        return UserError("memory is short: lower --replay-capacity or --num-envs, or free some")
    if "can't start new thread" in text:
        return UserError("the system starts no more threads: raise its limit (ulimit -u)")
    return None


@contextmanager
def shortage_is_told() -> Iterator[None]:
    """Turns errors that say that memory or threads are short into a UserError."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if (line := shortage(error)) is None:
            raise
        raise line from None


def gpu_memory(device: torch.device) -> tuple[int, int]:
    """Bytes reserved now and at the peak; zeros on the CPU."""
    if device.type == "cuda":
        return torch.cuda.memory_reserved(device), torch.cuda.max_memory_reserved(device)
    if device.type == "mps":
        reserved = torch.mps.driver_allocated_memory()
        return reserved, reserved
    return 0, 0
