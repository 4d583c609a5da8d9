"""The run of a reader that is fitted in one piece: fit, evaluate, report, in the work directory of any other run."""

import pathlib

import jax

from hep2jax import mesh as meshes
from hep2jax.config import Config
from hep2jax.data.splits import protocols
from hep2jax.errors import UsageError
from hep2jax.progress import say
from hep2jax.tasks import Task
from hep2jax.training import evaluation, fitted, workdir
from hep2jax.training import state as states
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
        sizes = ", ".join(f"{name} {len(indices)}" for name, indices in partition.splits().items())
        say(f"{config.data.name}: {partition.description}; {partition.leakage_note} ({sizes})")
    if not fitted.is_fitted(directory):
        with clock.phase("step"):
            (parameters, _), along = task.fit(partition.train, mesh)
        if is_chief:
            workdir.write_classes(directory, task.classes)
            fitted.save(directory, parameters, along)
    parameters = fitted.load(directory)
    with clock.phase("evaluation"):
        evaluator = task.evaluator(evaluation.make_network(config, task.num_outputs), mesh)
        evaluated = evaluation.measure_splits(task, evaluator, (parameters, {}), partition)
    if is_chief:
        evaluated = evaluation.with_calibration(task, directory, evaluated, partition, fitted.STEP, renews=True)
        _write(task, directory, parameters, evaluated, clock)


def _write(
    task: Task, directory: pathlib.Path, parameters: states.Tree, evaluated: evaluation.Evaluation, clock: StepClock
) -> None:
    writer = workdir.MetricsWriter(directory, 0)
    for split, metrics in evaluated.metrics.items():
        writer.write(fitted.STEP, split, task.summary(metrics.measured))
    digest, size = states.params_digest(parameters), states.num_parameters(parameters)
    facts = {"params_digest": digest, "num_parameters": size, "seconds": clock.seconds()["total"]}
    writer.write(fitted.STEP, "final", facts)
    writer.close()
    evaluation.write_report(task, directory, evaluated, clock.seconds(), fitted.STEP)
    say(f"params_digest {digest}")
