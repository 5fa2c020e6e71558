"""A function of tensors as a CUDA graph: one launch plays all its kernels, which takes the time of
a single launch in Python instead of that of hundreds.

A graph repeats what was captured on the same memory. So the inputs are copied into tensors that
stay, all else that changes from call to call must be in a tensor as well, and the function must not
wait for the GPU. Elsewhere than on CUDA the function runs directly.
"""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch

Inputs = TypeVar("Inputs", bound=tuple)  # a NamedTuple of tensors
Outputs = TypeVar("Outputs")

WARM_UPS = 3  # calls before the capture: libraries and Adam prepare themselves in the first ones


class CudaGraph(Generic[Inputs, Outputs]):
    """Called as the function itself; the next call overwrites the tensors that it returned."""

    def __init__(self, function: Callable[[Inputs], Outputs], device: torch.device) -> None:
        """
        Args:
            function: of tensors whose shapes are always the same.
        """
        self._function = function
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._inputs: Inputs | None = None
        self._warm_ups = WARM_UPS
        self._play: Callable[[], Outputs] | None = None

    def __call__(self, inputs: Inputs) -> Outputs:
        if self._inputs is None:
            named_tuple: Any = type(inputs)
            self._inputs = named_tuple(*map(torch.empty_like, inputs))
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given)
        if self._warm_ups > 0:
            self._warm_ups -= 1
            return self._run_beside(self._inputs)
        if self._play is None:
            static = self._inputs
            self._play = capture(lambda: self._function(static), self._stream)
        return self._play()

    def _run_beside(self, inputs: Inputs) -> Outputs:
        """On the stream of the capture, as PyTorch wants it."""
        if self._stream is None:
            return self._function(inputs)
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            outputs = self._function(inputs)
        current.wait_stream(self._stream)
        return outputs


def capture(
    function: Callable[[], Outputs], stream: torch.cuda.Stream | None
) -> Callable[[], Outputs]:
    """What plays the function from now on; nothing is computed yet."""
    if stream is None:
        return function
    graph = torch.cuda.CUDAGraph()
    # Other threads may use the GPU meanwhile: the trainer chooses actions there.
    with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        outputs = function()

    def play() -> Outputs:
        graph.replay()
        return outputs

    return play
