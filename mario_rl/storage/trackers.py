"""Programs that show the records of runs: TensorBoard, Weights & Biases, Trackio, MLflow.

They are extras, and the CSV files are the truth. A tracker that fails gives a warning, and the run
goes on without it. After a crash a tracker has the rows since the last checkpoint twice; on a CPU
they are the same.
"""

import importlib.util
import io
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mario_rl.config import Config
from mario_rl.console import note, warn
from mario_rl.errors import UserError, first_line
from mario_rl.registry import TRACKERS
from mario_rl.storage.lineage import Lineage

_PROJECT = "mario-rl"


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker is told about a run."""

    name: str
    folder: Path  # stats/NAME
    config: Config
    lineage: Lineage
    env_steps: int  # at which this session begins

    @property
    def id(self) -> str:
        """The same in every session of the run."""
        return self.lineage.run_id or self.name

    @property
    def tags(self) -> dict[str, str]:
        parents = self.lineage.parents
        return {
            "stage": self.config.env.stage,
            "iteration": str(self.lineage.iteration),
            "parent": parents[-1].run_name if parents else "none",
        }


class Tracker:
    """What the classes in `registry.TRACKERS` can do; this one does nothing.

    They are all made alike: Tracker(run: TrackedRun). Any exception means that it is given up.
    `flush` may be called in another thread than the rest.

    Attributes:
        library: the module that it needs.
    """

    library = ""

    def __init__(self, run: TrackedRun | None = None) -> None: ...

    def add(self, tag: str, row: Mapping[str, float], env_steps: int) -> None:
        """Take a row of a table; `tag` says which."""

    def add_video(self, path: Path, env_steps: int) -> None:
        """Take a video of the best model."""

    def flush(self) -> None:
        """A checkpoint is being written."""

    def close(self) -> None: ...


class Trackers(Tracker):
    """TensorBoard, where it is installed, and the one that the run's settings name."""

    def __init__(self, run: TrackedRun) -> None:
        makers: dict[str, Callable[[TrackedRun], Tracker]] = {}
        if importlib.util.find_spec("tensorboard") is not None:
            makers["TensorBoard"] = TensorBoard
        makers[run.config.run.track] = TRACKERS.get(run.config.run.track)
        self._trackers: dict[str, Tracker] = {}
        for name, make in makers.items():
            with self._optional(name):
                self._trackers[name] = make(run)

    def add(self, tag: str, row: Mapping[str, Any], env_steps: int) -> None:
        """Hand the numbers of a row on."""
        numbers = {name: value for name, value in row.items() if isinstance(value, int | float)}
        self._each(lambda tracker: tracker.add(tag, numbers, env_steps))

    def add_video(self, path: Path, env_steps: int) -> None:
        self._each(lambda tracker: tracker.add_video(path, env_steps))

    def flush(self) -> None:
        self._each(lambda tracker: tracker.flush())

    def close(self) -> None:
        self._each(lambda tracker: tracker.close())

    def _each(self, act: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            with self._optional(name):
                act(tracker)

    @contextmanager
    def _optional(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # other people's code, which can fail in any way
            self._trackers.pop(name, None)
            failure = f"{type(error).__name__}: {first_line(error)}"
            warn(f"{name} failed ({failure}); going on without it")


class TensorBoard(Tracker):
    """Event files in the folder of the run."""

    def __init__(self, run: TrackedRun) -> None:
        from torch.utils.tensorboard import SummaryWriter

        threading.excepthook = _without_tensorboard(threading.excepthook)
        # It drops what earlier files hold from this step on.
        self._writer: Any = SummaryWriter(
            str(run.folder / "tensorboard"), purge_step=run.env_steps + 1
        )

    def add(self, tag: str, row: Mapping[str, float], env_steps: int) -> None:
        for name, value in row.items():
            self._writer.add_scalar(f"{tag}/{name}", value, env_steps)

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases(Tracker):
    """https://docs.wandb.ai. Its environment variables hold, such as WANDB_MODE=offline."""

    library = "wandb"

    def __init__(self, run: TrackedRun) -> None:
        import wandb

        self._wandb: Any = wandb
        self._run = self._wandb.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT),
            id=run.id,
            name=run.name,
            dir=run.folder,
            config=run.config.to_dict(),
            tags=[f"{key}: {value}"[:64] for key, value in run.tags.items()],  # no more fits
            resume="allow",
            settings=self._wandb.Settings(silent=True, console="off", init_timeout=20),
        )
        self._run.define_metric("*", step_metric="env_steps")
        note(f"wandb: {self._run.dir if self._run.offline else self._run.url}")

    def add(self, tag: str, row: Mapping[str, float], env_steps: int) -> None:
        values = {f"{tag}/{name}": value for name, value in row.items()}
        self._run.log({**values, "env_steps": env_steps})

    def add_video(self, path: Path, env_steps: int) -> None:
        video = self._wandb.Video(str(path), format="mp4")
        self._run.log({"best model": video, "env_steps": env_steps})

    def close(self) -> None:
        self._run.finish()


class Trackio(Tracker):
    """https://huggingface.co/docs/trackio. Its environment variables hold, such as TRACKIO_DIR."""

    library = "trackio"

    def __init__(self, run: TrackedRun) -> None:
        import trackio

        self._trackio: Any = trackio
        project = os.environ.get("TRACKIO_PROJECT", _PROJECT)
        with redirect_stdout(io.StringIO()):
            self._run = self._trackio.init(
                project=project,
                name=f"{run.name}-{run.id[:8]}",  # it tells runs by their names
                config={**run.config.flat(), **run.tags},
                resume="allow",
                embed=False,
                auto_log_cpu=False,
            )
        note(f"trackio: trackio show --project {project}")

    def add(self, tag: str, row: Mapping[str, float], env_steps: int) -> None:
        self._run.log({f"{tag}/{name}": value for name, value in row.items()}, step=env_steps)

    def add_video(self, path: Path, env_steps: int) -> None:
        self._run.log({"best model": self._trackio.Video(str(path))}, step=env_steps)

    def close(self) -> None:
        with redirect_stdout(io.StringIO()):
            self._trackio.finish()


class MLflow(Tracker):
    """https://mlflow.org. MLFLOW_TRACKING_URI says where its server or database is."""

    library = "mlflow"
    _MOST = 1000, 100  # metrics, and parameters, of one request

    def __init__(self, run: TrackedRun) -> None:
        import mlflow

        for library in ("mlflow", "alembic"):
            logging.getLogger(library).setLevel(logging.WARNING)
        self._entities: Any = mlflow.entities
        self._client = mlflow.MlflowClient()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
        experiment = self._client.get_experiment_by_name(name)
        place = experiment.experiment_id if experiment else self._client.create_experiment(name)
        known = self._client.search_runs([place], f"tags.run_id = '{run.id}'")
        if known:
            self._id = known[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
        else:
            tags = {**run.tags, "run_id": run.id}
            self._id = self._client.create_run(place, run_name=run.name, tags=tags).info.run_id
            settings = [
                self._entities.Param(key, str(value)) for key, value in run.config.flat().items()
            ]
            for first in range(0, len(settings), self._MOST[1]):
                part = settings[first : first + self._MOST[1]]
                self._client.log_batch(self._id, params=part)
        # A request for each row would hold up the training.
        self._waiting: deque[Any] = deque()
        note(f"mlflow: run {self._id} of {mlflow.get_tracking_uri()}")

    def add(self, tag: str, row: Mapping[str, float], env_steps: int) -> None:
        now = int(1000 * time.time())
        for name, value in row.items():
            self._waiting.append(self._entities.Metric(f"{tag}/{name}", value, now, env_steps))

    def add_video(self, path: Path, env_steps: int) -> None:
        self._client.log_artifact(self._id, str(path), "videos")

    def flush(self) -> None:
        while self._waiting:
            count = min(len(self._waiting), self._MOST[0])
            batch = [self._waiting.popleft() for _ in range(count)]
            self._client.log_batch(self._id, metrics=batch)

    def close(self) -> None:
        self.flush()
        self._client.set_terminated(self._id)


def require_library(name: str) -> None:
    """
    Raises:
        UserError: if that tracker's library is missing.
    """
    library = TRACKERS.get(name).library
    if library and importlib.util.find_spec(library) is None:
        raise UserError(f"--track {name} needs {library}: pip install {library}")


def _without_tensorboard(
    hook: Callable[[threading.ExceptHookArgs], object],
) -> Callable[[threading.ExceptHookArgs], object]:
    """A hook that prints no traceback of TensorBoard's thread: it hands its errors to the caller,
    too."""

    def filtered(args: threading.ExceptHookArgs) -> None:
        if not type(args.thread).__module__.startswith("tensorboard."):
            hook(args)

    return filtered
