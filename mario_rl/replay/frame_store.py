"""Where the replay keeps its frames, each once: in main memory, or in a GPU's memory, where batches
are gathered without a copy from main memory."""

from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch

from mario_rl.config import STACK


class FrameStore(Protocol):
    """A frame for each slot, uint8 [slots, H, W]."""

    def write(self, slots: np.ndarray, frames: np.ndarray) -> None:
        """Store frames, uint8 [B, H, W], in slots, int64 [B]."""

    def read(self, start: int, stop: int) -> np.ndarray:
        """The frames of the slots from `start` to `stop` - 1, uint8 [slots, H, W]."""

    def gather(self, slots: np.ndarray) -> np.ndarray | torch.Tensor:
        """The frames in slots of any shape, uint8 [*shape, H, W]."""

    def gather_batch(self, slots: np.ndarray) -> np.ndarray | torch.Tensor:
        """As `gather`, for slots of shape [2, ...], but the next call may overwrite the frames."""


class HostFrames:
    """Frames in main memory."""

    def __init__(self, slots: int, frame_shape: tuple[int, int]) -> None:
        self._frames = np.empty((slots, *frame_shape), dtype=np.uint8)
        self._batch = np.empty((2, STACK, 0, *frame_shape), dtype=np.uint8)
        self._thread = ThreadPoolExecutor(max_workers=1)

    def write(self, slots: np.ndarray, frames: np.ndarray) -> None:
        self._frames[slots] = frames

    def read(self, start: int, stop: int) -> np.ndarray:
        return self._frames[start:stop]

    def gather(self, slots: np.ndarray) -> np.ndarray:
        return self._frames[slots]

    def gather_batch(self, slots: np.ndarray) -> np.ndarray:
        # Fresh memory would take longer than the copy.
        if self._batch.shape[:-2] != slots.shape:
            self._batch = np.empty((*slots.shape, *self._frames.shape[1:]), dtype=np.uint8)
        # One core alone cannot use the full speed of the memory.
        second_half = self._thread.submit(self._gather_half, slots, 1)
        self._gather_half(slots, 0)
        second_half.result()
        return self._batch

    def _gather_half(self, slots: np.ndarray, half: int) -> None:
        np.take(self._frames, slots[half], axis=0, out=self._batch[half], mode="clip")


class DeviceFrames:
    """Frames in the memory of a torch device."""

    def __init__(self, slots: int, frame_shape: tuple[int, int], device: torch.device) -> None:
        self._frames = torch.empty((slots, *frame_shape), dtype=torch.uint8, device=device)

    def write(self, slots: np.ndarray, frames: np.ndarray) -> None:
        device = self._frames.device
        self._frames[torch.from_numpy(slots).to(device)] = torch.from_numpy(frames).to(device)

    def read(self, start: int, stop: int) -> np.ndarray:
        return self._frames[start:stop].cpu().numpy()

    def gather(self, slots: np.ndarray) -> torch.Tensor:
        return self._frames[torch.from_numpy(slots).to(self._frames.device)]

    def gather_batch(self, slots: np.ndarray) -> torch.Tensor:
        return self.gather(slots)
