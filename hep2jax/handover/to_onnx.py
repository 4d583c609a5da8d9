"""Converts a network to ONNX by jax2onnx, in an environment of its own: `python -m hep2jax.handover.to_onnx DIR`.

DIR holds `job.json` and `arrays.npz` (see `onnx_network`); `model.onnx` and `difference.json` are added. Of hep2jax
only its networks and their arithmetic are imported, which need no more than what jax2onnx brings.
"""

import json
import pathlib
import sys
from typing import Any

import jax
import jax.numpy as jnp
import jax2onnx  # pyright: ignore[reportMissingImports]
import numpy as np
import onnxruntime  # pyright: ignore[reportMissingImports]
from flax import nnx

from hep2jax import models, ops
from hep2jax.config import ModelConfig


def main(folder: pathlib.Path) -> None:
    """Convert the network of the folder, and compare what ONNX Runtime computes with what hep2jax has computed."""
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    with np.load(folder / "arrays.npz") as file:
        arrays = dict(file)
    image, probabilities = arrays.pop("image"), arrays.pop("probabilities")
    model = _network(job, [arrays[f"leaf{number}"] for number in range(len(arrays))])
    path, side = folder / "model.onnx", job["side"]
    maps = [0] if probabilities.ndim == 4 else None
    with ops.target(ops.PLAIN):
        jax2onnx.to_onnx(
            lambda image: _probabilities(model, image, job),
            [("batch", side, side, 1)],
            model_name=job["model"]["name"],
            input_names=["image"],
            output_names=["probabilities"],
            inputs_as_nchw=[0],
            outputs_as_nchw=maps,
            return_mode="file",
            output_path=path,
        )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    several = np.concatenate([image, image])  # the batch is not fixed
    (found,) = session.run(None, {"image": several})
    difference = float(np.abs(np.asarray(found) - probabilities).max())
    (folder / "difference.json").write_text(json.dumps(difference))


def _network(job: dict[str, Any], leaves: list[np.ndarray]) -> Any:
    def build() -> Any:
        rngs, config = nnx.Rngs(0), ModelConfig(**job["model"])
        return models.build(config, num_outputs=job["outputs"], in_channels=1, rngs=rngs, dtype=jnp.dtype("float32"))

    graphdef, *parts = nnx.split(nnx.eval_shape(build), nnx.Param, nnx.BatchStat)
    structure = jax.tree.structure(tuple(nnx.to_pure_dict(part) for part in parts))
    return nnx.merge(graphdef, *jax.tree.unflatten(structure, list(map(jnp.asarray, leaves))))


def _probabilities(model: Any, image: Any, job: dict[str, Any]) -> Any:
    """The probabilities from normalised grey levels [batch, side, side, 1], as in `steps.make_predict_step`."""
    pixels = jnp.clip(image, *job["range"])
    if job["mean_centring"]:
        pixels = pixels - image.mean(axis=(1, 2, 3), keepdims=True)
    if not job["dihedral"]:
        return jax.nn.softmax(model(pixels, train=False).logits, axis=-1)
    # The views lie side by side: jax2onnx does not follow batches that are concatenated.
    views = jnp.stack(ops.dihedral_views(pixels), axis=1).reshape(-1, *pixels.shape[1:])
    said = jax.nn.softmax(model(views, train=False).logits, axis=-1)
    by_view = said.reshape(-1, 8, *said.shape[1:])
    return ops.mean_of_views([by_view[:, number] for number in range(8)])


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
