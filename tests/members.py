"""`python -m tests.members`: processes that join, are seen to have joined, and do one thing."""

import pathlib
import time
from collections.abc import Sequence

from absl import flags

from hep2jax import cli, distributed, main
from hep2jax.errors import UsageError

FAILURES = {"misuse": UsageError("there is no such thing"), "bug": KeyError("a bug"), "data": None, "none": None}


def run(argv: Sequence[str]) -> None:
    del argv
    options = flags.FLAGS
    processes = distributed.parse(
        cluster=False,
        coordinator=options.coordinator,
        num_processes=options.num_processes,
        process_id=options.process_id,
    )
    assert processes is not None
    config, name = cli.experiment()
    directory = pathlib.Path(name)
    cli.prepare_runtime()
    with distributed.joined(processes, options.join_timeout):
        distributed.check_alike(config, options.mode, directory)
        own = options.deed == "data" and processes.process_id == options.actor
        for digest in ("same", str(own)):
            distributed.check_same_data(lambda digest=digest: digest)
        print("joined", flush=True)
        if processes.process_id == options.actor and (error := FAILURES[options.deed]):
            raise error
        time.sleep(options.sleep)


if __name__ == "__main__":
    main.define_flags()
    flags.DEFINE_integer("actor", 0, "The process that does it.")
    flags.DEFINE_enum("deed", "none", list(FAILURES), "How it fails.")
    flags.DEFINE_integer("sleep", 0, "What the others do: seconds.")
    cli.run_app(run)
