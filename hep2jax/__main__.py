"""Deep networks that read HEp-2 images: train, evaluate and apply them.

hep2jax COMMAND [--name=value ...]

  train      train a configuration, then evaluate it; continues an interrupted run
  evaluate   evaluate a trained network
  predict    read your own images with a trained network
  view       read them on a page in your browser, and correct what was read
  export     hand a trained network to programs that do not have hep2jax
  profile    time the training step on the available devices
  compile    compile the training step for TPUs that are not available
  prepare    build a data set from its owner's files or from a folder of your own, or check the folder

hep2jax COMMAND --help lists the options of a command.
"""

import difflib
import importlib
import sys

COMMANDS = {
    "train": ("main", "--mode=train"),
    "evaluate": ("main", "--mode=evaluate"),
    "predict": ("predict",),
    "view": ("view",),
    "export": ("export",),
    "profile": ("main", "--mode=profile"),
    "compile": ("main", "--mode=compile"),
    "prepare": ("prepare",),
}
"""The module of each command and, if the module has several modes, the option that selects the mode."""


def run() -> None:
    """Run the command that the first argument names; the exit codes are those of `cli.run_app`."""
    name, *options = sys.argv[1:] or [""]
    if name in ("-h", "-help", "--help", "--helpshort"):
        print((__doc__ or "").strip())
        return
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        advice = f"did you mean '{near[0]}'?" if near else f"name one of {', '.join(COMMANDS)}"
        print(f"hep2jax: {f'no command {name!r}' if name else 'no command'}: {advice}", file=sys.stderr)
        sys.exit(2)
    module, *choice = COMMANDS[name]
    sys.argv = [f"hep2jax {name}", *choice, *options]
    from hep2jax import cli  # imported late, because --help must be quick

    command = importlib.import_module(f"hep2jax.{module}")
    command.define_flags()
    cli.run_app(command.main)


if __name__ == "__main__":
    run()
