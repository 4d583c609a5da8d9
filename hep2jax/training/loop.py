"""The training run, phase by phase."""

import contextlib
import dataclasses
import math
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import Float32, Float64

from hep2jax import distributed, stopping, tasks
from hep2jax import mesh as meshes
from hep2jax.config import Config
from hep2jax.data.splits import protocols
from hep2jax.data.streams import feeding
from hep2jax.data.streams.packed import Packed
from hep2jax.errors import DivergedError, UsageError
from hep2jax.models import pretrained
from hep2jax.perf import chips, model_flops
from hep2jax.progress import TrainingDisplay, say, scaled, shown
from hep2jax.tasks import Evaluator, Parameters, Task
from hep2jax.training import checkpoints, evaluation, fit, fitted, optimizers, outcome, packing, steps, timing, workdir
from hep2jax.training import state as states
from hep2jax.training.goodput import Account
from hep2jax.training.state import Network, TrainState
from hep2jax.training.timing import StepClock

_STORE_SHARE = 0.5  # the most of a device's memory that training images may take with data.warp=device


@dataclasses.dataclass(kw_only=True)
class Run:
    """What the phases of a training run share."""

    config: Config
    directory: pathlib.Path
    clock: StepClock
    mesh: jax.sharding.Mesh
    task: Task
    partition: protocols.Partition
    network: Network
    state: TrainState
    """Packed (see `packing`), as the compiled step takes it."""
    evaluator: Evaluator
    checkpoints: checkpoints.Checkpoints
    writer: workdir.MetricsWriter
    account: Account
    program: timing.Program = dataclasses.field(init=False, repr=False)
    """One device's work in a step; set when the step is compiled."""

    @property
    def is_chief(self) -> bool:
        """Whether this process writes files and prints messages."""
        return jax.process_index() == 0

    @property
    def step(self) -> int:
        """The number of steps done."""
        return int(jax.device_get(self.state.step))

    @property
    def parameters(self) -> Parameters:
        """Parameters and statistics of the averaged network, which is the one that is measured."""
        return packing.unpack((self.state.ema_params, self.state.ema_batch_stats))


def train(config: Config, directory: pathlib.Path, task: Task | None = None) -> None:
    """Continue the training in the work directory to its end, then evaluate and report.

    Pass `task` if the data set is already loaded; it may have been loaded for another fold.
    """
    meshes.check_divides("train.global_batch_size", config.train.global_batch_size)
    meshes.check_divides("evaluation.batch_size", config.evaluation.batch_size)
    clock = StepClock()
    with contextlib.ExitStack() as stack:
        with clock.phase("init"):
            meshes.on_chief(lambda: stack.enter_context(workdir.lock(directory)))
            meshes.on_chief(lambda: workdir.open_for_training(directory, config))
            task = task.under(config) if task else tasks.load(config)
            partition = _check_data(config, directory, task)
        if task.is_fitted:
            fit.run(config, directory, task, partition, clock)
        else:
            _run(config, directory, clock, task)


def _run(config: Config, directory: pathlib.Path, clock: StepClock, task: Task) -> None:
    with clock.phase("init"):
        run = prepare(config, directory, clock, task)
    try:
        _announce(run)
        _train(run)
        _finish(run)
    except stopping.Stopped as stop:
        _save_note(run, stop)
        raise
    finally:
        close(run)


def close(run: Run) -> None:
    """Finish what is being written."""
    with stopping.deferred(), contextlib.ExitStack() as last:  # from the last to the first, whichever of them fails
        last.callback(run.account.write)
        last.callback(run.writer.close)
        last.callback(run.checkpoints.close)


def _save_note(run: Run, stop: stopping.Stopped) -> None:
    """Say what is saved of a stopped run, after it is on disk."""
    with stopping.deferred():
        run.checkpoints.wait()
    saved = checkpoints.find(run.checkpoints.directory)
    if saved:
        last = run.config.train.num_steps
        where = shown(str(run.directory))
        stop.note = f"step {saved[0].step} of {last} is saved in {where}; the same command continues from there"


def complete(config: Config, directory: pathlib.Path, task: Task) -> dict[str, list[Any]]:
    """Train a run to its end, unless that is done, and return the results of every measured split, by name.

    Results saved in the work directory are used if they are of these examples, settings and parameters (see
    `evaluation.saved_results`). Otherwise `train` continues the training or measures again.

    Raises:
        UsageError: the work directory belongs to another run, or its checkpoint was trained on other examples.
    """
    meshes.on_chief(lambda: workdir.open_for_training(directory, config))
    task = task.under(config)
    partition = _check_data(config, directory, task)
    results = _saved_results(config, directory, task, partition)
    if results is None:
        train(config, directory, task)
        results = _saved_results(config, directory, task, partition)
    assert results is not None
    return results


def _check_data(config: Config, directory: pathlib.Path, task: Task) -> protocols.Partition:
    """The partition.

    Raises:
        UsageError: the processes have different examples, or the checkpoint was trained on others.
    """
    partition = protocols.partition(config.data, task.name, task.items, task.classes)
    distributed.check_same_data(lambda: task.fingerprint(range(len(task.items))))
    meshes.on_chief(lambda: workdir.check_same_data(directory, task.fingerprint(partition.train)))
    return partition


def _saved_results(
    config: Config, directory: pathlib.Path, task: Task, partition: protocols.Partition
) -> dict[str, list[Any]] | None:
    """The results of the best checkpoint; None if the run is not finished or something else was measured."""
    if task.is_fitted:
        finished = fitted.is_fitted(directory)
        return evaluation.saved_results(task, directory, partition, fitted.STEP) if finished else None
    found = checkpoints.find(directory / "checkpoints")
    if not found or found[0].step != config.train.num_steps:
        return None
    return evaluation.saved_results(task, directory, partition, checkpoints.best(directory / "checkpoints")[0].step)


def prepare(config: Config, directory: pathlib.Path, clock: StepClock, task: Task) -> Run:
    """Everything that a run needs before its first batch. The caller closes its checkpoints and its writer.

    Raises:
        UsageError: there is nothing to train on, or the pre-trained parameters do not fit.
    """
    partition = protocols.partition(config.data, task.name, task.items, task.classes)
    if not partition.train:
        raise UsageError(
            f"{task.name}: there is nothing to train on ({partition.description}); use --mode=evaluate to measure only"
        )
    if jax.process_index() == 0:
        workdir.write_classes(directory, task.classes)
    mesh = meshes.make_mesh()
    network = states.make_network(config, task.num_outputs)
    optimizer = optimizers.make_optimizer(config.optimizer, config.train.num_steps)
    state = states.initial_state(network, optimizer, config.seed, meshes.replicated(mesh))
    state = _starting_state(config, task, state, directory / "checkpoints")
    first_step = int(jax.device_get(state.step))
    writer = workdir.MetricsWriter(directory, first_step, enabled=jax.process_index() == 0)
    return Run(
        config=config,
        directory=directory,
        clock=clock,
        mesh=mesh,
        task=task,
        partition=partition,
        network=network,
        state=packing.pack(state),
        evaluator=task.evaluator(network, mesh),  # one for the whole run, so that its forward pass compiles once
        checkpoints=checkpoints.Checkpoints(directory / "checkpoints", config.train),
        writer=writer,
        account=Account(directory, clock, first_step),
    )


def _starting_state(config: Config, task: Task, fresh: TrainState, folder: pathlib.Path) -> TrainState:
    """The state of the newest intact checkpoint, else the pre-trained one, else the fresh one."""
    if (saved := checkpoints.resume(folder, fresh)) is not None:
        return saved
    if not config.model.init_from:
        return fresh
    if config.model.init_from == pretrained.IMAGENET:
        weights = _imagenet_weights(config.model.name)
        state, taken, total = states.graft(fresh, weights, weights, heads=False)
    else:
        source = evaluation.load(config.model.init_from, key="model.init_from")
        state, taken, total = states.graft(fresh, *source.parameters, heads=source.classes == task.classes)
    if not taken:
        raise UsageError(f"model.init_from={config.model.init_from}: no parameter of that network fits this one")
    say(f"pre-trained: {taken} of {total} parameter arrays taken from {config.model.init_from}")
    return state


def _imagenet_weights(name: str) -> pretrained.Parameters:
    """Parameters and statistics in one tree: they have the same paths in the networks for cells."""
    if name not in pretrained.PACKAGED:
        known = ", ".join(pretrained.PACKAGED)
        raise UsageError(f"model.init_from={pretrained.IMAGENET}: model.name={name} has no such weights: {known} have")
    return pretrained.load(name)[1]


def _announce(run: Run) -> None:
    if not run.is_chief:
        return
    outcome.announce(run.config, run.task, run.partition)
    num_parameters = states.num_parameters(run.state.params)
    devices = f"{jax.device_count()} {jax.default_backend()} device(s)"
    say(f"{run.config.model.name}: {num_parameters:,} parameters, {devices}")
    if run.step:
        say(f"continuing at step {run.step} of {run.config.train.num_steps}")


def _train(run: Run) -> None:
    first, last = run.step, run.config.train.num_steps
    with stopping.deferred():
        if _evaluates(run, first) and not run.checkpoints.has_score(first):
            _save(run, first, _validate(run, first))  # the last start was stopped in this validation
        if first >= last:
            return
        display = TrainingDisplay(first, last, enabled=run.is_chief)
        with open_feed(run, first, last) as feed, display:
            _loop(run, feed, display)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Feed:
    """The inputs of the compiled step besides the state."""

    batches: Iterator[Packed]
    """Each is the batch of one call, that is of `train.steps_per_call` steps."""
    constants: steps.Constants


@contextlib.contextmanager
def open_feed(run: Run, first_step: int, num_steps: int) -> Iterator[Feed]:
    """The batches of steps first_step … num_steps-1, and the constants that every step reads."""
    train = run.config.train
    stream = run.task.stream(run.partition.train, meshes.local_rows(run.mesh, train.global_batch_size))
    _check_fits(stream.store)
    constants = {"class_weights": class_weights(stream.frequencies(), run.config.loss.class_balance), **stream.store}
    dataset = stream.dataset(first_step, num_steps)
    batches = feeding.prefetched(dataset, run.mesh, train.prefetch, stack=train.steps_per_call)
    try:
        yield Feed(batches=batches, constants=jax.device_put(constants, meshes.replicated(run.mesh)))
    finally:
        batches.close()  # stops the thread that makes batches


def _check_fits(store: dict[str, np.ndarray]) -> None:
    """Raise UsageError if the training images would take more than `_STORE_SHARE` of a device's memory."""
    size, memory = sum(array.nbytes for array in store.values()), jax.local_devices()[0].memory_stats()
    limit = (memory or {}).get("bytes_limit", 0) * _STORE_SHARE
    if limit and size > limit:
        raise UsageError(
            f"data.warp=device: the training images take {scaled(size, 'B')} of each device's memory, more than "
            f"{scaled(limit, 'B')}, {_STORE_SHARE:.0%} of it; use data.warp=host"
        )


def _loop(run: Run, feed: Feed, display: TrainingDisplay) -> None:
    train, compiled = run.config.train, None
    window: list[steps.Metrics] = []
    for step in range(run.step + train.steps_per_call, train.num_steps + 1, train.steps_per_call):
        batch = next_batch(run.clock, feed.batches, window[-1] if window else None)
        if compiled is None:
            with run.clock.phase("host_to_device"):
                jax.block_until_ready((batch, feed.constants))
            with run.clock.phase("compile"):
                compiled = compile_step(run, batch, feed.constants)
            run.clock.window()
        with run.clock.phase("step"):  # donates the old state's buffers, so nothing else may hold on to that state
            run.state, metrics = compiled(run.state, batch, feed.constants)
        window.append(metrics)
        display.advance(step)
        stops, evaluates = stopping.requested(), _evaluates(run, step)
        saves = stops or step == train.num_steps or step % train.checkpoint_every == 0
        if saves or evaluates or step % train.log_every == 0:
            _close_window(run, step, window, display)  # before saving: it stops a diverged run, which is never saved
            window = []
        try:
            score = _validate(run, step) if evaluates and not stops else None
        except stopping.Stopped:
            _save(run, step)  # without a score: the next start validates it first
            raise
        if saves or evaluates:
            _save(run, step, score)
        if stops:
            raise stopping.Stopped


def _evaluates(run: Run, step: int) -> bool:
    """Whether the validation split is measured after this step."""
    train = run.config.train
    if not train.eval_every or not run.partition.validation or step == 0:
        return False
    return step == train.num_steps or step % train.eval_every == 0


def _save(run: Run, step: int, score: float | None = None) -> None:
    with run.clock.phase("checkpoint"):
        run.checkpoints.save(step, run.state, score)
        run.account.write(step)


def next_batch(clock: StepClock, batches: Iterator, newest: steps.Metrics | None) -> Packed:
    """The next batch. All waiting for it counts as `data_wait`, unless the devices are still busy when it arrives.

    `newest`: metrics of the step that was dispatched last; None if no step is running.
    """
    with clock.phase("data_wait"):
        batch = next(batches)
        # The loop runs ahead of the devices: waiting costs nothing while they still have steps to execute.
        if newest is not None and not newest["loss"].is_ready():  # pyright: ignore[reportAttributeAccessIssue]
            clock.recount("step")
    return batch


def compile_step(
    run: Run, batch: Packed, constants: steps.Constants, *, network: Network | None = None
) -> jax.stages.Compiled:
    """Compile the training step and keep XLA's analysis of it. `network` replaces the run's network, if given."""
    program = steps.train_program(run.config, network or run.network, run.task.loss, run.mesh)
    compiled = program.lower(run.state, batch, constants).compile()
    flops = model_flops.model_flops(run.config, run.task.num_outputs, run.config.train.global_batch_size)
    run.program = timing.analyse(compiled, flops)
    if run.is_chief:
        say(_describe(run.program))
    return compiled


def _describe(program: timing.Program) -> str:
    flops, accessed = scaled(program.flops, "FLOP"), scaled(program.bytes_accessed, "B")
    return f"a step on each device: {flops}, {accessed} accessed, {scaled(program.memory_bytes, 'B')} of memory"


def _close_window(run: Run, step: int, window: list[steps.Metrics], display: TrainingDisplay) -> None:
    """Fetch the window's metrics, which waits for the devices to finish its steps; then check and log them."""
    with run.clock.phase("step"):
        fetched = jax.device_get(window)
    columns = {name: np.concatenate([np.ravel(step_metrics[name]) for step_metrics in fetched]) for name in fetched[0]}
    count = len(columns["loss"])
    _check_finite(step - count + 1, columns)
    metrics = {name: float(np.mean(values)) for name, values in columns.items()} | _speed(run, count)
    run.writer.write(step, "train", metrics)
    run.account.write(step)
    display.window(step, metrics, run.config.train.global_batch_size)


def _speed(run: Run, num_steps: int) -> dict[str, float]:
    """Rates and efficiency of the window that ends now."""
    batch, devices = run.config.train.global_batch_size, jax.device_count()
    rates = timing.rates(run.clock.window(), steps=num_steps, batch=batch, devices=devices)
    chip = chips.find(jax.devices()[0].device_kind)
    dtype = states.compute_dtype(run.config).name
    efficiency = timing.efficiency(run.program, rates["step_seconds"], devices=devices, chip=chip, dtype=dtype)
    return rates | efficiency


def _check_finite(first_step: int, columns: dict[str, np.ndarray]) -> None:
    for step, (loss, norm) in enumerate(zip(columns["loss"], columns["grad_norm"], strict=True), first_step):
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise DivergedError(
                f"step {step}: loss {loss}, gradient norm {norm}; earlier checkpoints are kept; "
                "lower optimizer.learning_rate or optimizer.clip_norm and start in a new work directory"
            )


def _validate(run: Run, step: int) -> float:
    """Measure the validation split and return its score, which ranks the checkpoints."""
    with run.clock.phase("evaluation"):
        results = run.evaluator.measure(run.parameters, run.partition.validation)
        measured = run.task.metrics(results)
    run.writer.write(step, "validation", run.task.summary(measured))
    return run.task.score(measured)


def class_weights(frequencies: Float64[np.ndarray, " output"], class_balance: float) -> Float32[np.ndarray, " output"]:
    """The weight of each class in the loss: proportional to (1/frequency)^class_balance, and 0 for absent classes.

    The weights are scaled so that their mean over what the batches hold is 1.
    """
    present = frequencies > 0
    weights = np.where(present, np.where(present, frequencies, 1.0) ** -class_balance, 0.0)
    return (weights / (weights @ frequencies)).astype(np.float32)


def _finish(run: Run) -> None:
    """Evaluate every split except the training split, write the last lines of the log, then the report."""
    # Of the parameters after the last step: the best checkpoint may replace them below.
    digest, last_step = states.params_digest(packing.unpack(run.state.params)), run.step
    run.checkpoints.wait()
    best = checkpoints.best(run.checkpoints.directory)
    if best and best[0].step != last_step:
        run.state, _ = checkpoints.restore_first(best, run.state) or (run.state, None)
    with run.clock.phase("evaluation"):
        evaluated = evaluation.measure_splits(run.task, run.evaluator, run.parameters, run.partition)
    if run.is_chief:
        outcome.leave(
            run.task,
            run.directory,
            run.partition,
            evaluated,
            run.account,
            run.writer,
            last_step=last_step,
            measured_step=run.step,
            digest=digest,
            num_parameters=states.num_parameters(run.state.params),
        )
