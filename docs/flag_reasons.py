"""What docs/flags.md says beside its tables: why the defaults are what they are, and which flags
depend on each other. `python -m docs.make_flags` puts the page together."""

INTRODUCTION = """\
# Flags

All settings of a run: for `progressive_mario_trainer.py` and `continue_training.py` as flags, for
`mario_rl.train` as arguments (`--eps-start` is `eps_start`). `python -m docs.make_flags` writes
this page from [mario_rl/config.py](../mario_rl/config.py); the reasons below the tables are in
[flag_reasons.py](flag_reasons.py). The flags that only one script has are on the page of the
[commands](commands.md).

An *env step* is one decision of the agent: 4 frames of the game, 1/15 of a second. The env steps of
all games count together. *Kept by* says what a setting belongs to:

- *model*: the weights mean nothing without it. A model keeps it for good.
- *replay*: the stored transitions depend on it. `--resume` keeps it. `continue_training.py` takes
  another value, and the new run then begins with an empty replay.
- *run*: `--resume` keeps it, `continue_training.py` takes another value.
- *nothing*: the budget, and how the machine is used. `--resume` takes another value.

`--no-show-buttons`, `--no-hold-actions`, `--no-double-q` and `--no-deterministic` say no. Some
flags limit each other; a value that does not fit is refused with one line:

- `--eps-end` is at most `--eps-start`.
- `--learning-starts` is at least `--batch-size`, and at least `--num-envs` * (`--n-step` + 1), when
  the first transitions are complete.
- `--replay-capacity` is at least `--learning-starts`, and at least 64 for each of the `--num-envs`
  games.
"""

REASONS = {
    "stage": """Without `--stage` the whole game is played: play continues into the next stage after
        a flag, and an episode is one life. When `continue_training.py` changes the stage, the
        average of the weights [starts again](experiments/weight-average-on-a-new-stage.md).""",
    "action_set": """`right` has no button, right, right+A, right+B and right+A+B; `simple` adds A
        and left; `complex` adds left with A, B and both, down and up. [Fewer
        actions](experiments/fewer-actions.md) are not learned faster.""",
    "emulator": """Both play the same cartridge, and the agent sees the same picture
        ([emulators](emulators.md)). A run keeps the one that it began with. `eval_mario.py` plays
        on nes-py, that of gym-super-mario-bros, unless it is told otherwise.""",
    "view": """With Mario always in the same place, the network need not learn for each place what
        an enemy beside him means. The view is 192x168 of the screen's 256x240 pixels. With it
        [every seed learns](experiments/view-around-mario.md): 59 to 76 of 100 games at 120,000 env
        steps instead of 15 to 29 with two seeds of three.""",
    "frame_size": """A picture of 42x42 [teaches as well as one of
        84x84](experiments/half-the-picture.md), in two thirds of the time and a quarter of the
        memory. The first convolution has a stride of a 21st of the picture and twice that as its
        kernel, so the layers after it are the same whatever the size is.""",
    "pixels": """In `red` Mario and what moves stand out; in `grey` they are nearly as bright as the
        sky. [Mean x of 1,518](experiments/red-instead-of-grey.md) between 50,000 and 60,000 env
        steps instead of 972. `red` takes the last frame of a decision, `grey` the maximum of the
        last two, as Mnih et al. 2015 do.""",
    "show_buttons": """Mario jumps only when A is pressed after it was released, and nothing else in
        the picture tells that. Before the buttons were shown, half of all games [ended at the first
        Goomba](experiments/held-buttons-in-the-picture.md).""",
    "reward": """In units of ten pixels: the new furthest x in the stage, -0.05 for each decision,
        `--death-penalty` for a death and +5 for a cleared stage. A Warp Zone [earns
        nothing](experiments/the-warp-zone-of-1-2.md): it lies beyond the way to the flag. A flag
        with only one value is left out of `--help` until [a second one](extending.md#a-reward) is
        registered.""",
    "death_penalty": """10 clears [92 % of the games instead of 83
        %](experiments/death-penalty-10.md), little more than policies of one run differ; it came
        [together with the quantiles](experiments/quantiles.md). [25 from the
        beginning](experiments/death-penalty-25.md) learns more slowly. The learner sees the penalty
        times `--reward-scale`.""",
    "stall_steps": """150 are ten seconds. A stall is not an end as far as returns go: the value of
        the next state is added as if the game continued.""",
    "num_envs": """It also sets the spread of `--eps-ladder` (a single game has no ladder), how many
        games `--retry-share` means, and the smallest `--learning-starts` and `--replay-capacity`.
        The replay stores the frames of all games side by side, so another number begins with an
        empty one. More games make choosing the actions cheaper, but [the loop hardly
        faster](performance.md#how-cost-grows).""",
    "eps_start": """`continue_training.py` starts at 0.1 at most, because a model knows the way, and
        random play would only undo that.""",
    "eps_end": """With `--hold-actions` the share of random env steps is larger than epsilon: 6 % at
        0.02, and 25 % at 0.1. More of them [from the
        beginning](experiments/single-random-actions-early.md) learn more slowly, [later
        on](experiments/single-random-actions-late.md) they make no difference.""",
    "eps_ladder": """Each game has its own epsilon, as in Ape-X; 7 is the value of Horgan et al.
        2018. The first game has epsilon itself, the others less. As long as epsilon is 1, all games
        have 1. No game explores less than the evaluations do (0.01), unless epsilon itself is
        less. Ape-X's own ladder, in which epsilon does not fall further than 0.4, is [behind after
        200,000 env steps](experiments/noise-from-the-beginning.md).""",
    "hold_actions": """Jumping over a high pipe takes A held for half a second. The random time is
        mostly short and now and then long (epsilon-z-greedy, Dabney et al. 2021). With save points
        it brings the [first flag](experiments/save-points-and-held-actions.md) after 8,000 to
        15,000 env steps; without either there was none in 127,000.""",
    "retry_share": """These games practise longest what is hardest. They are the first games, those
        with the largest epsilons; their number is rounded down. A save point is made where Mario
        stands on the ground every 160 pixels, and used up to 16 times, after a death or a stall; a
        game that cleared its stage begins at the start again. Evaluations always play from the
        start. A simple form of Go-Explore (Ecoffet et al. 2021; Salimans & Chen 2018); the evidence
        is [the same as for `--hold-actions`](experiments/save-points-and-held-actions.md).""",
    "demos": """Files of `eval_mario.py --record-demo`, or of [a
        search](play.md#a-way-that-nobody-played). A game begins at the start, does what one of them
        shows for a random number of decisions, and then plays on by itself (jump-start RL, Uchendu
        et al. 2023). Buttons that are no action, or that change within a decision, are replaced by
        the nearest; a line says how far that leads. The checkpoints hold the decisions, so a resume
        needs no file. `continue_training.py` follows none unless it is told to. [In the maze of
        4-4](experiments/following-demonstrations.md) it leads to the flag, on 2-2 there
        was no gain.""",
    "replay_capacity": """1.8 KB for each transition, 0.17 GiB for 100,000, because each frame is
        stored once. The run checks the free memory before it starts, and names the largest capacity
        that fits. [200,000](experiments/a-replay-of-200000.md) is behind,
        [400,000](experiments/a-replay-of-400000.md) is not ahead.""",
    "priority_exponent": """0.6, and 0.4 below, are those of Schaul et al. 2016. It [hardly
        matters](experiments/uniform-replay.md): uniform replay clears 376 of 400 games, 0.6 clears
        374. Transitions from a parent's replay keep their priority until they are drawn again.""",
    "importance_exponent": """Sampling that is [not
        corrected](experiments/uncorrected-sampling.md), together with more exploration and a larger
        replay, was behind; a correction that [stays at
        0.4](experiments/importance-exponent-late.md), together with a larger learning rate, too.
        `continue_training.py` starts where the model's run had come to.""",
    "importance_steps": """Counted in env steps of this run; it does not follow `--max-steps`.""",
    "learner": """Q-learning with a target network, with another target if you [register
        one](extending.md#a-learner). An [ensemble](experiments/an-ensemble.md) and
        [Munchausen](experiments/munchausen.md) were no better.""",
    "loss": """The quantile Huber loss (Dabney et al. 2018), which bends at `--reward-scale`; with
        `--num-quantiles 1` the Huber loss, which bends at 1. A [categorical
        loss](experiments/categorical-loss.md) predicts deaths worse. [How to add a
        loss](extending.md#a-loss).""",
    "batch_size": """The number of updates is env steps since `--learning-starts` * `--replay-ratio`
        / `--batch-size`: a larger batch means fewer updates. [64](experiments/batch-64.md) with
        four times as many updates is behind, and [small batches waste the
        processor](performance.md#how-cost-grows).""",
    "learning_rate": """[3e-4 plays no better, 1e-3 worse](experiments/larger-learning-rates.md).
        `continue_training.py` keeps what the rate had fallen to.""",
    "lr_decay": """Large steps make a good policy come and go; [small ones at the
        end](experiments/learning-rate-falls-late.md) make it steadier: 87 % of the games instead of
        74 %. A rate that falls [from the
        beginning](experiments/learning-rate-falls-from-the-beginning.md) or
        [earlier](experiments/an-earlier-fall-of-the-learning-rate.md) learns less. Counted in env
        steps of this run, and it does not follow `--max-steps`: set both, and take more for the
        full game. `continue_training.py` keeps the rate constant unless this flag is given.""",
    "double_q": """It takes a fifth more time for an update, and [without it](
        experiments/half-the-picture.md) the agent learns as well.""",
    "gamma": """With 0.97, what is 33 decisions away counts for a third. At 0.9 what comes later
        does not make up for the run-up that a long jump takes: 1-3 [is not
        cleared](experiments/gamma-0.97-on-1-3.md) in 122,503 env steps, with 0.97 in 71 of 100
        games. On [1-1](experiments/gamma-0.97.md) it is better with two seeds of three, on
        [1-2](experiments/gamma-0.97-on-1-2.md) slower. [0.99](experiments/gamma-0.99.md) learns
        slowly at first, [0.95](experiments/gamma-0.95.md) did not help. The returns in the replay
        are sums with this discount, so another one begins with an empty replay. `--n-step` rewards
        are discounted with it one by one, and the value after them by gamma ^ n (0.74 at the
        defaults).""",
    "reward_scale": """Adam's small steps take long to reach large Q-values; smaller rewards need
        fewer of them. [15 of 20 games at 140,000 env steps instead of
        2](experiments/replay-ratio-24.md), together with `--replay-ratio`;
        a [tenth of the
        rewards](experiments/longer-returns-and-smaller-rewards.md) had helped before. A loss that
        changes from square to linear at the same place treats errors alike at every scale. The
        statistics `loss`, `td_error` and `q_value` are in scaled rewards, returns are not.""",
    "n_step": """What is learned of a jump that fails then comes from the fall itself, not from what
        the next state seems worth. [74 of 100 games](experiments/n-step-10.md) at 160,000 env
        steps, where 5 steps cleared 5 of 20. [3 later on](experiments/n-step-3-late.md) and
        [returns that end at random actions](experiments/returns-cut-at-random-actions.md) made no
        difference. With `--num-envs` it sets the smallest `--learning-starts`. Transitions that
        are already in the replay keep the number that they were made with.""",
    "replay_ratio": """Mnih et al. 2015 have 8. A larger ratio is slower and learns from fewer
        games; 24 keeps two CPU cores as busy as the games do. [15 of 20 games instead of 2 with
        12](experiments/replay-ratio-24.md), together with `--reward-scale`;
        [48](experiments/replay-ratio-48.md) learns no more. It was chosen on CPUs: on a GPU another
        value may be better.""",
    "learning_starts": """Until then the games only fill the replay. Updates are counted from there
        on: those of the first env steps are not made up for.""",
    "target_period": """Counted in env steps: at the defaults 187 updates, and more with a larger
        `--replay-ratio` or a smaller `--batch-size`. [8,000](experiments/target-period-8000.md)
        learns more slowly.""",
    "network_width": """Half the channels and units learn three times as fast on a CPU. [All of
        them](experiments/network-width-1.md) play no better, and are slower.""",
    "num_quantiles": """QR-DQN (Dabney et al. 2018). With deaths that cost 10 and a learning rate
        that stays longer: [about 94 % at the end with two seeds of
        three](experiments/quantiles.md) instead of 90 %. An update takes 1.05 times as long. With 1
        the loss is another one: see `--loss`.""",
    "max_grad_norm": """10 is that of Wang et al. 2016.""",
    "eval_interval": """A model is written only after an evaluation, and the run ends with one. How
        often a run is evaluated does not change how it is trained, but takes time.""",
    "eval_episodes": """20 games tell little, and the best of many evaluations is also the luckiest.
        So a policy that cleared something, and may be the best by its 95 % interval, plays four
        times as many more (100 in all) before it replaces the best.""",
    "num_episodes": """The budget that is spent first ends the run. Retries from save points are
        episodes, too. Give a large number, such as 1000000, to leave the end to `--max-steps`.""",
    "max_hours": """It ends the run by the clock, so not at the same step twice.""",
    "checkpoint_interval": """A checkpoint is also written with each new best model, and at the end.
        Training [does not wait](reliability.md#what-a-checkpoint-costs) for it.""",
    "record_best": """A typical game of its evaluation: that whose return is the median. It takes
        [less than 1 % of the time](plots.md#videos-of-the-best-models). If PyAV is missing or the
        video cannot be written, the run warns once and goes on. `--no-record-best` makes none.""",
    "track": """The CSV files are the truth, and TensorBoard's files are written wherever it is
        installed. [How each tracker is used](trackers.md).""",
    "games": """Both give the same run, bit for bit. `serial` is slower; it suits notebooks and
        debuggers.""",
    "ray": """In place of `--games`; the run is the same, bit for bit. [How to](cluster.md).""",
    "device": """`auto` takes CUDA, else Apple's MPS, else the CPU.""",
    "threads": """The order in which threads add numbers changes the last bits. So the number is
        measured once, kept in config.json and the checkpoints, and a resumed run uses it again.
        [How it is chosen](performance.md#a-model).""",
    "precision": """`auto` takes bfloat16 on GPUs and CPUs that have it, but on Intel's CPUs [only
        with AMX](performance.md#where-the-time-goes). Weights and heads stay float32:
        bfloat16 would round Q-values more coarsely than the advantages differ.""",
    "gpu_memory_fraction": """PyTorch refuses to take more. The replay's frames go to the GPU if
        they fit within this share beside the networks, else to main memory.""",
    "deterministic": """Not run yet: [there was no
        GPU](reliability.md#what-is-promised-what-is-not).""",
    "seed": """The same bits need the same CPU, `--device`, `--precision` and versions. The games of
        the evaluations depend on it as well.""",
}
