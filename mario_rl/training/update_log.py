"""The statistics of the updates: averaged, and written to updates.csv now and then."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from mario_rl.device import gpu_memory
from mario_rl.machine import resident_memory_bytes
from mario_rl.storage.recorder import Recorder
from mario_rl.storage.records import UPDATES


class UpdateLog:
    """Averages whatever metrics the learner returns, and measures the speeds of training."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self.metrics: dict[str, list[float]] = {}  # of the updates since the last row
        self.loss: float | None = None  # of the last row
        self.resume({}, env_steps=0, updates=0)

    def resume(self, metrics: dict[str, list[float]], env_steps: int, updates: int) -> None:
        """Continue from a checkpoint."""
        self.metrics = metrics
        self._since = time.monotonic()
        self._env_steps_before, self._updates_before = env_steps, updates

    def add(self, metrics: dict[str, float]) -> None:
        """Add the metrics of an update."""
        for name, value in metrics.items():
            self.metrics.setdefault(name, []).append(value)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time inside the block does not count: the speeds are those of training."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.discount(time.monotonic() - began)

    def discount(self, seconds: float) -> None:
        """Time that does not count."""
        self._since += seconds

    def record(
        self,
        *,
        env_steps: int,
        updates: int,
        episodes: int,
        hours: float,
        epsilon: float,
        importance_exponent: float,
        device: torch.device,
    ) -> None:
        """Write a row, if there were any updates since the last."""
        now = time.monotonic()
        seconds = now - self._since
        speeds = {
            "env_steps_per_s": (env_steps - self._env_steps_before) / seconds,
            "updates_per_s": (updates - self._updates_before) / seconds,
        }
        metrics = {name: float(np.mean(values)) for name, values in self.metrics.items()}
        self.resume({}, env_steps, updates)
        if not metrics:
            return
        self.loss = metrics["loss"]
        reserved, peak = gpu_memory(device)
        self._recorder.record(
            UPDATES,
            {
                "env_steps": env_steps,
                "updates": updates,
                "episodes": episodes,
                "hours": hours,
                **metrics,
                "epsilon": epsilon,
                "importance_exponent": importance_exponent,
                **speeds,
                "memory_bytes": resident_memory_bytes(),
                "gpu_reserved_bytes": reserved,
                "gpu_peak_bytes": peak,
            },
        )
