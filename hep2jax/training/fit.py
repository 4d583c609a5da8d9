"""The run of a reader that is fitted in one piece: fit, evaluate, report, in the work directory of any other run."""

import contextlib
import pathlib

import jax

from hep2jax import mesh as meshes
from hep2jax.config import Config
from hep2jax.data.splits import protocols
from hep2jax.errors import UsageError
from hep2jax.tasks import Task
from hep2jax.training import evaluation, fitted, outcome, workdir
from hep2jax.training import state as states
from hep2jax.training.goodput import Account
from hep2jax.training.timing import StepClock


def run(config: Config, directory: pathlib.Path, task: Task, partition: protocols.Partition, clock: StepClock) -> None:
    """Fit unless that is done, then evaluate and report. The work directory is open, and its data are checked.

    Raises:
        UsageError: there is nothing to learn from.
    """
    mesh, is_chief = meshes.make_mesh(), jax.process_index() == 0
    if not partition.train:
        raise UsageError(f"{task.name}: there is nothing to learn from ({partition.description})")
    if is_chief:
        outcome.announce(config, task, partition)
    is_fitted = fitted.is_fitted(directory)
    account = Account(directory, clock, first_step=fitted.STEP if is_fitted else 0)
    try:
        if not is_fitted:
            with clock.phase("step"):
                (parameters, _), along = task.fit(partition.train, mesh)
            if is_chief:
                workdir.write_classes(directory, task.classes)
                fitted.save(directory, parameters, along)
            account.write(fitted.STEP)
        parameters = fitted.load(directory)
        with clock.phase("evaluation"):
            evaluator = task.evaluator(task.make_network(config, task.classes), mesh)
            evaluated = evaluation.measure_splits(task, evaluator, (parameters, {}), partition)
        if is_chief:
            with contextlib.closing(workdir.MetricsWriter(directory, 0)) as writer:
                outcome.leave(
                    task,
                    directory,
                    partition,
                    evaluated,
                    account,
                    writer,
                    last_step=fitted.STEP,
                    measured_step=fitted.STEP,
                    digest=states.params_digest(parameters),
                    num_parameters=task.count_parameters(parameters),
                )
    finally:
        account.write()
