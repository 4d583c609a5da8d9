"""Packs an ONNX network for bioimage.io, in an environment of its own: `python -m hep2jax.handover.to_bioimageio DIR`.

DIR holds `job.json`, `model.onnx`, `README.md`, `test_input.npy` and `test_output.npy` (see `bioimageio_package`). The
package, which bioimageio.core has tested, is added. Nothing of hep2jax is imported.
"""

import json
import pathlib
import sys
from typing import Any

import bioimageio.core  # pyright: ignore[reportMissingImports]
import onnx  # pyright: ignore[reportMissingImports]
from bioimageio.spec import save_bioimageio_package  # pyright: ignore[reportMissingImports]
from bioimageio.spec.model import v0_5 as spec  # pyright: ignore[reportMissingImports]


def main(folder: pathlib.Path) -> None:
    """Write the package of the folder; exit with 1 and one line if it does not pass the test."""
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    package = save_bioimageio_package(_model(folder, job), output_path=folder / job["file"])
    summary = bioimageio.core.test_model(package, weight_format="onnx")
    if summary.status != "passed":
        errors = [error.msg for detail in summary.details for error in detail.errors]
        sys.exit(f"bioimageio.core: {summary.status}: {' '.join('; '.join(errors).split())[:300]}")


def _model(folder: pathlib.Path, job: dict[str, Any]) -> Any:
    opset = onnx.load(folder / "model.onnx", load_external_data=False).opset_import[0].version
    weights = spec.OnnxWeightsDescr(source=folder / "model.onnx", opset_version=opset)
    return spec.ModelDescr(
        **job["about"],
        documentation=spec.FileDescr(source=folder / "README.md"),
        inputs=[_input(folder, job)],
        outputs=[_output(folder, job)],
        weights=spec.WeightsDescr(onnx=weights),
        config=spec.Config(bioimageio=_facts(job)),
    )


def _facts(job: dict[str, Any]) -> Any:
    tolerance = spec.ReproducibilityTolerance(absolute_tolerance=job["tolerance"], relative_tolerance=0)
    return spec.BioimageioConfig(reproducibility_tolerance=[tolerance], **job["facts"])


def _input(folder: pathlib.Path, job: dict[str, Any]) -> Any:
    axes = [spec.BatchAxis(), spec.ChannelAxis(channel_names=["grey"])]
    axes += [spec.SpaceInputAxis(id=name, size=job["side"]) for name in ("y", "x")]
    return spec.InputTensorDescr(
        id="image",
        description=job["reads"],
        axes=axes,
        data=spec.IntervalOrRatioDataDescr(type="float32"),
        test_tensor=spec.FileDescr(source=folder / "test_input.npy"),
        preprocessing=[_normalisation(job["normalisation"])],
    )


def _normalisation(how: dict[str, float]) -> Any:
    """The statistics are those of a whole image, not of its tiles."""
    if "divide_by" in how:
        return spec.ScaleLinearDescr(kwargs=spec.ScaleLinearKwargs(gain=1 / how["divide_by"]))
    percentiles = {"min_percentile": how["low_percentile"], "max_percentile": how["high_percentile"]}
    return spec.ScaleRangeDescr(kwargs=spec.ScaleRangeKwargs(axes=["channel", "y", "x"], **percentiles))


def _output(folder: pathlib.Path, job: dict[str, Any]) -> Any:
    axes = [spec.BatchAxis(), spec.ChannelAxis(channel_names=job["channels"])]
    if job["maps"]:
        sizes = {name: spec.SizeReference(tensor_id="image", axis_id=name) for name in ("y", "x")}
        axes += [spec.SpaceOutputAxisWithHalo(id=name, size=size, halo=job["halo"]) for name, size in sizes.items()]
    return spec.OutputTensorDescr(
        id="probabilities",
        description="The probability of each channel.",
        axes=axes,
        data=spec.IntervalOrRatioDataDescr(type="float32", range=(0.0, 1.0)),
        test_tensor=spec.FileDescr(source=folder / "test_output.npy"),
    )


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
