"""Writes the API reference, one page for each module, from annotations and docstrings: `make docs`.

    python -m scripts.api_reference [--output=build/api]

Anything that the generator warns of is an error, so that the reference cannot lose a name unnoticed.
"""

import pathlib
import pkgutil
import warnings
from collections.abc import Sequence

import pdoc
from absl import app, flags

import hep2jax
from hep2jax import handover

_OUTPUT = flags.DEFINE_string("output", "build/api", "Folder to write to; index.html is its first page.")
_PACKAGES = ("hep2jax", "tfds_builders", "configs")
_ELSEWHERE = ("run_onnx", "run_stablehlo", "to_bioimageio", "to_onnx")
"""Modules of `handover` that are programs for other environments, with packages that are absent in this one."""


def main(argv: Sequence[str]) -> None:
    """Write the reference."""
    del argv
    warnings.simplefilter("error", UserWarning)  # the category of the generator's own warnings
    # Annotations that other packages, and ours of protocols, import for type checkers alone.
    for name in ("for tensorflow_datasets", r"utils\.", "DataclassInstance", "ArrayTree"):
        warnings.filterwarnings("ignore", f"Error parsing type annotation .*{name}")
    warnings.filterwarnings("ignore", ".*No module named '_typeshed'")
    for name in hep2jax.__all__:  # imported when they are first used, of which the generator does not know
        setattr(hep2jax, name, getattr(hep2jax, name))
    parts = [module.name for module in pkgutil.iter_modules(handover.__path__)]
    handover.__dict__["__all__"] = [name for name in parts if name not in _ELSEWHERE]  # others would be imported
    call = hep2jax.Reader.__call__
    call.__doc__ = f"{call.__doc__}\n\n@public"  # the generator shows no other method with underscores
    pdoc.render.configure(docformat="google", search=True, footer_text=f"hep2jax {hep2jax.__version__}")
    # By name: those of hep2jax are not in its list of public names.
    rooms = [module.name for module in pkgutil.iter_modules(hep2jax.__path__, "hep2jax.")]
    excluded = [f"!hep2jax.handover.{name}" for name in _ELSEWHERE]
    pdoc.pdoc(*_PACKAGES, *rooms, *excluded, output_directory=pathlib.Path(_OUTPUT.value))
    print(f"{_OUTPUT.value}/index.html")


if __name__ == "__main__":
    app.run(main)
