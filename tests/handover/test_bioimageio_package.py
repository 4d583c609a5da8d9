"""bioimageio.core accepts the package and runs it, in an environment without hep2jax."""

import subprocess
import zipfile

import numpy as np
import pytest

from hep2jax.config import Config
from hep2jax.errors import RunError
from hep2jax.handover import bioimageio_package, onnx_network, programs, reference
from tests.handover import networks
from tests.handover.test_onnx_network import PYTHON, cells, fields, needs_onnx

TEST = """if True:
    import json, sys
    import numpy as np
    import bioimageio.core
    sys.modules["hep2jax"] = None  # to import it fails
    package, image, options = sys.argv[1], np.load(sys.argv[2]), json.loads(sys.argv[3])
    assert bioimageio.core.test_model(package).status == "passed"
    said = bioimageio.core.predict(model=package, inputs={"image": image}, **options)
    np.save(sys.argv[4], said.members["probabilities"].data.values)
"""


@pytest.mark.slow
@needs_onnx
@pytest.mark.parametrize(
    ("config", "options", "shape"),
    [(cells("gao"), "{}", (78, 78)), (fields(), '{"blocksize_parameter": 0}', (100, 150))],
)
def test_a_package_is_tested_and_read(config: Config, options: str, shape: tuple[int, int], tmp_path):
    trained = networks.stirred(config, 0.1)
    program, tile = programs.make(trained), reference.make_tile(trained)
    onnx_network.write(tmp_path, trained, tile, PYTHON)
    about = bioimageio_package.write(tmp_path, trained, program, tile, "# A card\n", PYTHON)
    package = tmp_path / about["file"]
    with zipfile.ZipFile(package) as archive:
        assert b"this is no medical device" in archive.read("rdf.yaml")
    image = np.pad(tile.image, [(0, max(0, n - m)) for n, m in zip(shape, tile.image.shape, strict=True)], "symmetric")
    np.save(tmp_path / "image.npy", image[None, None].astype(np.float32))
    line = [PYTHON, "-I", "-c", TEST, package, tmp_path / "image.npy", options, tmp_path / "said.npy"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    said = np.load(tmp_path / "said.npy")
    if program.reads_fields:
        assert said.shape == (1, 4, *shape)
        np.testing.assert_allclose(said.sum(axis=1), 1, atol=1e-4)
    else:
        np.testing.assert_allclose(said[0], tile.probabilities, rtol=0, atol=reference.TOLERANCE)


@pytest.mark.slow
@needs_onnx
def test_a_package_that_says_something_else_is_refused(tmp_path):
    trained = networks.stirred(cells("gao"), 0.2)
    tile = reference.make_tile(trained)
    onnx_network.write(tmp_path, trained, tile, PYTHON)
    tile.probabilities[0] += 0.001
    with pytest.raises(RunError, match="elements disagree with expected values"):
        bioimageio_package.write(tmp_path, trained, programs.make(trained), tile, "# A card\n", PYTHON)
    assert not (tmp_path / bioimageio_package.FILE).exists()
