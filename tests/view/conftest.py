"""The page behind a real server on loopback, with tiny networks that nobody has trained."""

import http.client
import pathlib
from collections.abc import Iterator

import cv2
import pytest

import hep2jax
from hep2jax import mesh as meshes
from hep2jax import tasks, view
from hep2jax.config import Config
from hep2jax.specimens.nuclear_size import Scales
from hep2jax.training import optimizers
from hep2jax.training import state as states
from hep2jax.view import server
from hep2jax.view.desk import Desk
from tfds_builders.hep2_synthetic import generator

TOKEN = "secret"


def small(name: str, data_dir: pathlib.Path) -> Config:
    """A shipped configuration, for a network that compiles fast."""
    config = hep2jax.load_config(name)
    config.data.builder_config, config.data.data_dir = "specimens_tiny", str(data_dir)
    config.model.width, config.seed = 0.01, 1
    config.evaluation.batch_size, config.evaluation.nuclear_diameter = 8, 46.0
    if name == "unet":
        config.data.crop_size, config.evaluation.tile_size, config.evaluation.tile_overlap = 32, 64, 16
    return tasks.resolve(config)


def untrained(config: Config) -> hep2jax.Reader:
    """A configured network with the parameters that it starts with."""
    kind, classes = tasks.kind(config), tasks.patterns(config)
    network = states.make_network(config, kind.count_outputs(classes))
    optimizer = optimizers.make_optimizer(config.optimizer, 1)
    state = states.initial_state(network, optimizer, config.seed, meshes.replicated(meshes.make_mesh()))
    return kind.reader_class(config, classes, network, (state.ema_params, state.ema_batch_stats))


@pytest.fixture(scope="session")
def reader(data_dir) -> hep2jax.Reader:
    """Takes most of an image for cells, of several patterns."""
    return untrained(small("unet", data_dir))


@pytest.fixture(scope="session")
def image(tmp_path_factory) -> pathlib.Path:
    """A field whose name is markup."""
    path = tmp_path_factory.mktemp("images") / "<b>field & cell.png"
    field = generator.generate_specimen(1, "homogeneous", "positive", height=150, width=210, fields=1)[0]
    cv2.imwrite(str(path), field.image)
    return path


@pytest.fixture
def desk(reader, tmp_path) -> Iterator[Desk]:
    """Holds no image yet."""
    desk = Desk(reader, Scales(None), tmp_path)
    yield desk
    desk.close()


@pytest.fixture
def page(desk) -> Iterator[int]:
    """The port of the page."""
    with view.listen(0) as listener:
        running, thread = server.start(server.make_app(desk, TOKEN, title="tiny"), listener)
        yield listener.getsockname()[1]
        running.should_exit = True
        thread.join(10)


class Client:
    """Asks the page as its script does."""

    def __init__(self, port: int) -> None:
        self._port = port

    def __call__(
        self, method: str, path: str, body: bytes | None = None, **changed: str
    ) -> tuple[int, bytes, http.client.HTTPMessage]:
        """Status, body and headers of the answer; `changed` replaces headers."""
        headers = {"Authorization": f"Bearer {TOKEN}", **{k.replace("_", "-"): v for k, v in changed.items()}}
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=120)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read(), answer.headers
        finally:
            connection.close()


@pytest.fixture
def ask(page) -> Client:
    return Client(page)
