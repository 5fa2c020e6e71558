"""`import mario_rl`: the Gymnasium environments, policies, and what runs recorded."""

import os
import subprocess
import sys
import warnings

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from scripts import ROOT

import mario_rl
from mario_rl.config import STACK, STAGES

MODEL = ROOT / "pretrained" / "1-1.pth"


@pytest.fixture
def env():
    with gymnasium.make("mario_rl:SuperMarioBros-1-1-v0", render_mode="rgb_array") as env:
        yield env


@pytest.mark.parametrize("arguments", [{}, {"frame_stack": 4}, {"view": "screen"}])
def test_environment_passes_the_checker_without_warnings(arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gymnasium.make("mario_rl:SuperMarioBros-1-1-v0", **arguments)
        check_env(env.unwrapped, skip_render_check=True)
        env.close()


def test_rendering_passes_the_checker_without_warnings(display):
    script = (
        "import gymnasium, warnings; from gymnasium.utils.env_checker import check_env\n"
        "warnings.simplefilter('error')\n"
        "env = gymnasium.make('mario_rl:SuperMarioBros-1-1-v0', render_mode='rgb_array')\n"
        "check_env(env.unwrapped)\n"  # opens a window, too
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


def test_screens_are_rendered_as_arrays(env):
    env.reset(seed=0)
    screen = env.render()
    assert screen.shape == (240, 256, 3) and screen.dtype == np.uint8 and screen.std() > 10


def test_without_a_display_the_window_is_refused_in_one_line(monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    env = mario_rl.SuperMarioBros("1-1", render_mode="human")
    with pytest.raises(mario_rl.UserError, match="there is no display"):
        env.reset()
    env.close()


def test_all_stages_are_registered():
    for stage in STAGES:
        assert gymnasium.spec(f"SuperMarioBros-{stage}-v0").kwargs["stage"] == stage
    assert gymnasium.spec("SuperMarioBros-v0").kwargs["stage"] == "full"


@pytest.mark.parametrize(
    "first", ["import gymnasium", "import mario_rl", "import mario_rl.games.emulator"]
)
def test_names_are_ours_whatever_is_imported_first(first):
    """gym-super-mario-bros registers the same names where it uses Gymnasium, too."""
    script = (
        f"{first}\nimport gymnasium, warnings\nwarnings.simplefilter('error')\n"
        "for _ in range(2):\n"
        "    env = gymnasium.make('mario_rl:SuperMarioBros-1-2-v0')\n"
        "    print(type(env.unwrapped).__module__, env.observation_space.shape)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert result.stdout == 2 * "mario_rl.games.gymnasium_env (1, 42, 42)\n"
    assert "Overriding" not in result.stderr


def test_seeds_decide_the_no_op_frames_and_options_set_them(env):
    def first(**arguments):
        """The console's memory: no picture changes in the first frames."""
        env.reset(**arguments)
        return env.unwrapped._game.ram()

    same = {first(seed=7) for _ in range(2)}
    assert len(same) == 1
    assert len({first() for _ in range(12)}) > 3
    fixed = {first(options={"noop_frames": 30}) for _ in range(2)}
    assert len(fixed) == 1 and fixed != {first(options={"noop_frames": 0})}


def test_stack_repeats_the_first_frame_then_moves_on():
    env = mario_rl.SuperMarioBros("1-1", frame_stack=STACK, max_noop_frames=0)
    obs, _ = env.reset()
    assert obs.shape == (STACK, 42, 42)
    assert all(np.array_equal(obs[0], frame) for frame in obs)
    for _ in range(8):
        last, (obs, *_) = obs, env.step(4)
        assert np.array_equal(obs[:-1], last[1:])
    assert not np.array_equal(obs[-1], last[-1])
    env.close()


def test_an_episode_ends_as_the_game_says(env):
    env.reset(seed=0)
    terminated = truncated = False
    total, steps = 0.0, 0
    while not terminated and not truncated:
        _, reward, terminated, truncated, info = env.step(1)  # walks into the first enemy
        total, steps = total + reward, steps + 1
    assert terminated and info["outcome"] == "death" and info["world"] == 1
    assert total == pytest.approx(info["max_x"] / 10 - 4 - 0.05 * steps - 10, abs=1.5)


def test_a_bad_setting_is_an_error():
    with pytest.raises(mario_rl.UserError, match="--view"):
        mario_rl.SuperMarioBros("1-1", view="upside-down")
    with pytest.raises(mario_rl.UserError, match="takes stage, emulator, action_set"):
        mario_rl.SuperMarioBros("1-1", gamma=0.5)


@pytest.mark.parametrize(
    "arguments",
    [{"frame_stack": 0}, {"frame_stack": "4"}, {"frame_stack": True}, {"max_noop_frames": -1},
     {"max_noop_frames": 1.5}, {"max_noop_frames": 256}, {"render_mode": "ansi"}],
)  # fmt: skip
def test_bad_arguments_are_errors_in_one_line(arguments):
    with pytest.raises(mario_rl.UserError, match=next(iter(arguments))):
        mario_rl.SuperMarioBros("1-1", **arguments)


def test_misuse_of_an_environment_is_told_and_does_not_crash():
    env = mario_rl.SuperMarioBros("1-1", stall_steps=2)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(0)
    for options in ({"noop_frames": -1}, {"noop_frames": "x"}, {"noop_frames": 1.5}, {"other": 1}):
        with pytest.raises(mario_rl.UserError, match="noop_frames"):
            env.reset(options=options)
    env.reset(seed=0)
    for action in (-1, 99, 1.7, "1", None):
        with pytest.raises(gymnasium.error.InvalidAction):
            env.step(action)
    while not env.step(np.int64(0))[3]:
        pass
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(0)
    env.reset()
    env.close()
    env.close()
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(0)
    with pytest.raises(gymnasium.error.ClosedEnvironmentError):
        env.reset()


def test_a_shipped_policy_clears_its_stage():
    policy = mario_rl.load(MODEL)
    env = mario_rl.make_env(policy)
    cleared = []
    for seed in range(3):
        obs, _ = env.reset(seed=seed)
        done = False
        while not done:
            obs, _, terminated, truncated, info = env.step(policy.act(obs))
            done = terminated or truncated
        cleared.append(info["outcome"] == "clear")
    env.close()
    assert sum(cleared) >= 2, cleared


def test_actions_are_the_best_by_their_q_values():
    policy = mario_rl.load(MODEL)
    obs = np.random.default_rng(0).integers(256, size=(3, STACK, 84, 84), dtype=np.uint8)
    q_values = policy.q_values(obs)
    assert q_values.shape == (3, len(policy.action_names)) and q_values.dtype == np.float32
    assert policy.q_values(obs[0]).shape == (len(policy.action_names),)
    assert policy.act(obs).tolist() == q_values.argmax(axis=1).tolist()
    assert policy.act(obs[1]) == q_values[1].argmax() and type(policy.act(obs[1])) is int


def test_observations_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"\(1, 4, 42, 42\) for a policy that sees \(4, 84, 84\)"):
        mario_rl.load(MODEL).act(np.zeros((1, STACK, 42, 42), dtype=np.uint8))


def test_unknown_names_are_errors(tmp_path):
    with pytest.raises(AttributeError, match="nothing"):
        _ = mario_rl.nothing
    with pytest.raises(mario_rl.UserError, match="no setting 'epsilon'"):
        mario_rl.train("run", tmp_path, epsilon=0.1)
    with pytest.raises(mario_rl.UserError, match="no run 'run'"):
        mario_rl.read_run("run", tmp_path)
    assert set(mario_rl.__all__) <= set(vars(mario_rl.api))


def test_a_script_without_a_guard_is_told_so(tmp_path):
    (tmp_path / "unguarded.py").write_text(
        "import mario_rl\n"
        "mario_rl.train('run', stage='1-1', num_envs=1, max_steps=20, learning_starts=300)\n"
    )
    result = subprocess.run(
        [sys.executable, "unguarded.py"], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert result.returncode != 0
    assert "put the call under `if __name__" in result.stderr


def test_another_library_trains_on_the_environment():
    stable_baselines3 = pytest.importorskip("stable_baselines3")
    env = gymnasium.make("mario_rl:SuperMarioBros-1-1-v0", frame_stack=STACK)
    model = stable_baselines3.DQN(
        "CnnPolicy", env, buffer_size=2_000, learning_starts=200, batch_size=16, train_freq=16,
        seed=0, device="cpu",
    )  # fmt: skip
    before = [weights.clone() for weights in model.policy.parameters()]
    model.learn(2_000)
    assert model.num_timesteps == 2_000 and len(model.ep_info_buffer) > 3
    assert any(
        not torch.equal(ours, theirs)
        for ours, theirs in zip(before, model.policy.parameters(), strict=True)
    )
    env.close()


def test_the_notebook_runs_from_top_to_bottom():
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook = nbformat.read(ROOT / "examples" / "first_steps.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "outputs are not committed"
    client = nbclient.NotebookClient(notebook, resources={"metadata": {"path": str(ROOT)}})
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pictures = [o for o in outputs if "image/png" in o.get("data", {})]
    assert len(pictures) == 3
    text = "".join(o.get("text", "") for o in outputs)
    assert "finished: " in text
