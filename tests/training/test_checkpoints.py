"""What is saved comes back bit for bit, and what was damaged since does not pass for it."""

import dataclasses
import gc
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hep2jax import mesh as meshes
from hep2jax.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig
from hep2jax.errors import UsageError
from hep2jax.training import checkpoints, optimizers, packing
from hep2jax.training import state as states
from hep2jax.training.checkpoints import Checkpoints, DamagedCheckpointError
from hep2jax.training.state import TrainState

OPTIMIZER = OptimizerConfig(warmup_steps=2)


def _state(seed: int = 0, outputs: int = 4, network: str = "gao") -> TrainState:
    """Of the network with the fewest arrays: Orbax takes its time for each."""
    config = Config(data=DataConfig(crop_size=78), model=ModelConfig(name=network, width=0.01))
    optimizer = optimizers.make_optimizer(OPTIMIZER, 10)
    made = states.make_network(config, outputs)
    return states.initial_state(made, optimizer, seed, meshes.replicated(meshes.make_mesh()))


def _save(folder: pathlib.Path, *saves: tuple, **options) -> None:
    """Save (step, state) or (step, state, score)."""
    writer = Checkpoints(folder, TrainConfig(**options))
    for save in saves:
        writer.save(*save)
    writer.close()


def _assert_equal(back: TrainState, state: TrainState) -> None:
    for a, b in zip(jax.tree.leaves(back), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(a, b)


def _steps(folder: pathlib.Path) -> list[int]:
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


def test_they_come_back_bit_for_bit(tmp_path):
    state = _state(network="fcn")  # with statistics of normalisation
    _save(tmp_path, *((step, state) for step in (1, 2, 3)))
    assert _steps(tmp_path) == [2, 3]  # keep_latest = 2
    _assert_equal(checkpoints.restore(checkpoints.find(tmp_path)[0], _state(seed=1, network="fcn")), state)


def test_a_packed_state_is_saved_as_plain_arrays(tmp_path):
    state, other = (_state(seed, network="fcn") for seed in range(2))
    _save(tmp_path, (1, packing.pack(state)))
    (saved,) = checkpoints.find(tmp_path)
    plain, packed = checkpoints.restore(saved, other), checkpoints.restore(saved, packing.pack(other))
    assert jax.tree.structure(packed) == jax.tree.structure(packing.pack(state)) != jax.tree.structure(plain)
    _assert_equal(plain, state)
    _assert_equal(packing.unpack(packed), state)


def test_the_best_is_kept(tmp_path):
    state = _state()
    scored = ((step, state, score) for step, score in ((1, 0.2), (2, 0.9), (3, 0.5), (4, 0.4)))
    _save(tmp_path, *scored, eval_every=1, keep_latest=1, keep_best=1)
    assert [checkpoint.step for checkpoint in checkpoints.best(tmp_path)] == [2, 4]
    assert _steps(tmp_path) == [2, 4]


def test_a_score_is_added_once(tmp_path):
    """A run that was stopped in its validation saves without a score; the next start adds it."""
    first, second = _state(), _state(seed=1)
    _save(tmp_path, (1, first), eval_every=1)
    writer = Checkpoints(tmp_path, TrainConfig(eval_every=1))
    assert not writer.has_score(1)
    writer.save(1, second, 0.5)
    writer.save(1, first, 0.7)
    writer.wait()
    assert writer.has_score(1)
    assert not writer.has_score(2)
    writer.close()
    (saved,) = checkpoints.find(tmp_path)
    assert saved.score == 0.5
    _assert_equal(checkpoints.restore(saved, first), second)


def test_another_architecture_is_named_by_its_first_parameter(tmp_path):
    _save(tmp_path, (1, _state()))
    with pytest.raises(UsageError, match=r"another architecture: 'params/.*' is \(.*4, .*\) there and \(.*9, .*\)"):
        checkpoints.restore(checkpoints.find(tmp_path)[0], _state(outputs=9))


def test_another_dtype_is_named(tmp_path):
    state = _state()
    _save(tmp_path, (1, state))
    other = dataclasses.replace(state, step=jnp.zeros((), jnp.float32))
    with pytest.raises(UsageError, match=r"'step' is \('int32',\) there and \('float32',\)"):
        checkpoints.restore(checkpoints.find(tmp_path)[0], other)


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    state = _state()
    bad = dataclasses.replace(state, params=jax.tree.map(lambda x: x + jnp.nan, state.params))
    _save(tmp_path, (1, bad))
    with pytest.raises(DamagedCheckpointError, match=r"'params/.*' is not finite"):
        checkpoints.restore(checkpoints.find(tmp_path)[0], state)


DATA = "state/ocdbt.process_0/d/*"
DAMAGE = {
    "truncated arrays": (DATA, lambda content: content[: len(content) // 2]),
    "emptied arrays": (DATA, lambda content: b""),
    "flipped arrays": (DATA, lambda content: _flipped(content)),
    "no arrays": (DATA, None),
    "truncated manifest": ("state/manifest.ocdbt", lambda content: content[: len(content) // 2]),
    "no manifest": ("state/manifest.ocdbt", None),
    "truncated structure": ("state/_METADATA", lambda content: content[: len(content) // 2]),
    "emptied metadata": ("_CHECKPOINT_METADATA", lambda content: b""),
    "flipped metadata": ("_CHECKPOINT_METADATA", lambda content: _flipped(content)),
    "no metadata": ("_CHECKPOINT_METADATA", None),
    "truncated score": ("metrics/metrics", lambda content: content[: len(content) // 2]),
    "emptied score": ("metrics/metrics", lambda content: b""),
}


def _flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes(byte ^ 0xFF for byte in content[middle : middle + 4]) + content[middle + 4 :]


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> tuple[pathlib.Path, TrainState, TrainState]:
    """A folder with the checkpoints of steps 1 and 2, and their states."""
    folder = tmp_path_factory.mktemp("saved") / "checkpoints"
    first, second = _state(), _state(seed=1)
    _save(folder, (1, first, 0.2), (2, second, 0.5), eval_every=1)
    return folder, first, second


# Orbax leaves the rest of its reads to an event loop that is closed after the first error.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("damage", DAMAGE)
def test_of_a_damaged_checkpoint_nothing_is_used(damage: str, saved, tmp_path, capfd):
    """Training continues from the one before and can save the step again; a reader uses the one before."""
    source, first, second = saved
    pattern, change = DAMAGE[damage]
    folder = shutil.copytree(source, tmp_path / "checkpoints")
    (path,) = (folder / "2").glob(pattern)
    if change is None:
        path.unlink()
    else:
        path.write_bytes(change(path.read_bytes()))
    restored = checkpoints.restore_first(checkpoints.best(folder), second)
    assert restored is not None
    assert restored[1].step == 1
    _assert_equal(restored[0], first)
    resumed = checkpoints.resume(folder, second)
    assert resumed is not None
    _assert_equal(resumed, first)
    assert _steps(folder) == [1]
    assert (tmp_path / checkpoints.DAMAGED / "2-0").is_dir()
    ours = [line for line in capfd.readouterr().err.splitlines() if line.startswith("hep2jax: ")]
    assert len(ours) == 3, ours  # the reader, and training, which also says where the checkpoint was moved
    _save(folder, (2, second, 0.5), eval_every=1)
    _assert_equal(checkpoints.restore(checkpoints.find(folder)[0], first), second)
    gc.collect()  # what Orbax left of its reads, before the next test is blamed for it


@pytest.mark.parametrize("file", ["commit_success.txt", "state/ocdbt.process_0/manifest.ocdbt"])
def test_files_without_content_of_the_state_do_not_matter(file: str, saved, tmp_path):
    source, first, second = saved
    folder = shutil.copytree(source, tmp_path / "checkpoints")
    (folder / "2" / file).unlink()
    _assert_equal(checkpoints.restore(checkpoints.find(folder)[0], first), second)


def test_all_damaged(saved, tmp_path):
    """Nothing is moved: someone may still be able to save something."""
    source, first, _ = saved
    folder = shutil.copytree(source, tmp_path / "checkpoints")
    for path in folder.glob("*/state/_METADATA"):
        path.unlink()
    with pytest.raises(DamagedCheckpointError, match="no other checkpoint is left"):
        checkpoints.resume(folder, first)
    assert _steps(folder) == [1, 2]
