"""What every run says at its start and leaves at its end, whether it is trained in steps or fitted in one piece."""

import pathlib
from collections.abc import Sequence

from hep2jax.config import Config
from hep2jax.data.splits import protocols
from hep2jax.progress import say
from hep2jax.tasks import Task
from hep2jax.training import evaluation, workdir
from hep2jax.training.goodput import Account


def announce(config: Config, task: Task, partition: protocols.Partition) -> None:
    """Say how the examples are divided, and what is to be known of the data set."""
    splits = ", ".join(f"{name} {_size(task, indices)}" for name, indices in partition.splits().items())
    say(f"{config.data.name}: {partition.description}; {partition.leakage_note} ({splits})")
    for note in task.notes:
        say(f"{config.data.name}: {note}")


def _size(task: Task, indices: Sequence[int]) -> str:
    """Such as `96 of 48 specimens`, or only the number of examples if their specimens are unknown."""
    specimens = {task.items[i].specimen for i in indices}
    return f"{len(indices)}" if "" in specimens else f"{len(indices)} of {len(specimens)} specimens"


def leave(
    task: Task,
    directory: pathlib.Path,
    partition: protocols.Partition,
    evaluated: evaluation.Evaluation,
    account: Account,
    writer: workdir.MetricsWriter,
    *,
    last_step: int,
    measured_step: int,
    digest: str,
    num_parameters: int,
) -> None:
    """Write the size of the nuclei, the calibration, the last lines of the log and the report. Only for process 0.

    Args:
        task: the task.
        directory: the work directory.
        partition: its splits.
        evaluated: the measured splits, without calibration.
        account: the run's time.
        writer: of `metrics.jsonl`.
        last_step: the number of the last step.
        measured_step: that of the checkpoint that was measured.
        digest: of the parameters after the last step.
        num_parameters: their number.
    """
    _keep_nuclear_size(task, directory, partition)
    evaluated = evaluation.with_calibration(task, directory, evaluated, partition, measured_step, renews=True)
    for split, metrics in evaluated.metrics.items():
        writer.write(last_step, split, task.summary(metrics.measured))
    seconds = account.seconds()
    final = {"params_digest": digest, "num_parameters": num_parameters, "seconds": seconds["total"]}
    writer.write(last_step, "final", {**final, "goodput": seconds["step"] / seconds["total"]})
    evaluation.write_report(task, directory, evaluated, seconds, measured_step)
    say(account.describe())
    say(f"params_digest {digest}")


def _keep_nuclear_size(task: Task, directory: pathlib.Path, partition: protocols.Partition) -> None:
    """Measure the training images, unless an earlier start did: a work directory is trained on the same data always."""
    if workdir.read_nuclear_size(directory) is not None:
        return
    if (nuclear_size := task.nuclear_size(partition.train)) is not None:
        workdir.write_nuclear_size(directory, nuclear_size)
