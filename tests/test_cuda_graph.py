"""The captured update, on the CPU: a tape stands for the CUDA graph."""

import torch
from test_learner import make_batch, saved
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mario_rl.agent import cuda_graph
from mario_rl.agent.cuda_graph import WARM_UPS
from mario_rl.agent.dqn import DQN
from mario_rl.agent.network import DuelingNetwork
from mario_rl.config import Config

# Exact in float32, as a captured update has it in a tensor
RATES = [2.0**-13, 2.0**-12, 2.0**-14]


class Tape(TorchDispatchMode):
    """Records every operation, and repeats them as a CUDA graph does: with the numbers that Python
    gave them then, on the same memory."""

    def __init__(self, function, stream):
        super().__init__()
        assert stream is None  # on a CPU
        self._function = function
        self._operations = []
        self._outputs = None

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        assert operation is not torch.ops.aten._local_scalar_dense.default, "waits for the device"
        outputs = operation(*args, **(kwargs or {}))
        self._operations.append((operation, args, kwargs or {}, outputs))
        return outputs

    def __call__(self):
        if self._outputs is None:
            with self:
                self._outputs = self._function()
            return self._outputs
        for operation, args, kwargs, outputs in self._operations:
            with torch.no_grad():
                new = operation(*args, **kwargs)
                for own, other in zip(tree_leaves(outputs), tree_leaves(new), strict=True):
                    if isinstance(own, torch.Tensor):
                        own.copy_(other)
        return self._outputs


def make_learner(captured, dtype=torch.float32):
    torch.manual_seed(0)
    config = Config().replaced(
        {"network_width": 0.25, "num_quantiles": 4, "learning_rate": RATES[0]}
    )
    network = DuelingNetwork(5, dtype, 0.25, 4, config.env.frame_size)
    return DQN(network, config.learner, captured=captured)


def states(learner):
    """All tensors of the state, by name."""
    state = learner.begin_state().result()
    tensors = {
        f"{net}.{name}": tensor
        for net in ("online_net", "target_net", "acting_net", "average_net")
        for name, tensor in getattr(state, net).items()
    }
    for number, moments in state.optimizer["state"].items():
        tensors |= {f"{number}.{name}": tensor for name, tensor in moments.items()}
    return tensors


def train(learner, first, updates):
    results = []
    for i in range(first, first + updates):
        learner.set_learning_rate(RATES[i % 3])
        learner.begin_update(make_batch(seed=i))
        results.append(learner.fetch_update())
        if i % 4 == 3:
            learner.sync_target()
    return results


def assert_same(learners, results):
    for ours, theirs in zip(*results, strict=True):
        assert ours.td_errors.tolist() == theirs.td_errors.tolist()
        assert ours.metrics == theirs.metrics
    ours, theirs = map(states, learners)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def test_a_graph_of_the_update_repeats_it_with_other_values(monkeypatch):
    """Nothing that changes from update to update is left out of the static tensors."""
    tapes = []
    monkeypatch.setattr(cuda_graph, "capture", lambda *args: tapes.append(Tape(*args)) or tapes[-1])
    for dtype in (torch.float32, torch.bfloat16):
        learners = [make_learner(captured, dtype) for captured in (False, True)]
        assert_same(learners, [train(learner, 0, WARM_UPS + 9) for learner in learners])
    assert len(tapes) == 2 and all(tape._operations for tape in tapes)


def test_a_captured_learner_resumes_any_other_and_is_resumed(monkeypatch, tmp_path):
    monkeypatch.setattr(cuda_graph, "capture", Tape)
    learners = [make_learner(captured) for captured in (False, True)]
    for captured in ((True, False), (False, True)):
        assert_same(learners, [train(learner, 0, WARM_UPS + 3) for learner in learners])
        files = [saved(learner, tmp_path) for learner in learners]
        assert files[0].optimizer["param_groups"] == files[1].optimizer["param_groups"]
        learners = list(map(make_learner, captured))
        for learner, file in zip(learners, files, strict=True):
            learner.load_state(file)
    assert_same(learners, [train(learner, 40, WARM_UPS + 3) for learner in learners])


def test_a_graph_that_was_captured_forgets_it_when_another_state_is_loaded(monkeypatch, tmp_path):
    """It would go on with the moments in the old memory."""
    monkeypatch.setattr(cuda_graph, "capture", Tape)
    learners = [make_learner(captured) for captured in (False, True)]
    for learner in learners:
        train(learner, 0, WARM_UPS + 2)
        state = saved(learner, tmp_path)
        train(learner, 10, 3)
        learner.load_state(state)
    assert_same(learners, [train(learner, 20, WARM_UPS + 2) for learner in learners])
