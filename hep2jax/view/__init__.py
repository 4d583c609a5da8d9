"""Opens a page in the browser on which a trained network reads your images, and on which you correct its cells.

hep2jax view --workdir=DIR [--port=8765] [--images='PATTERN']

The page is for this machine alone: it listens on 127.0.0.1, and only the link that is printed opens it. Images stay in
memory until they are removed or the command ends.
"""

import importlib
import pathlib
import secrets
import socket
from collections.abc import Sequence
from typing import Any

from absl import flags

from hep2jax import cli, predict
from hep2jax.errors import UsageError
from hep2jax.prediction import inputs
from hep2jax.progress import say


def define_flags() -> None:
    """Define the command's flags."""
    predict.define_reader_flags()
    for name in ("workdir", "fields", "segmenter", "nuclear_diameter"):
        flags.declare_key_flag(name)  # so that --help lists it
    flags.DEFINE_integer("port", 8765, "Port on 127.0.0.1; 0 takes any that is free.", lower_bound=0, upper_bound=65535)
    flags.DEFINE_string("images", None, "Quoted shell pattern of images to begin with (** descends), or their folder.")


def main(argv: Sequence[str]) -> None:
    """Show the page until the command is asked to stop."""
    del argv
    directory, pattern = flags.FLAGS.workdir, flags.FLAGS.images
    if not directory:
        raise UsageError("--workdir is missing: view needs --workdir=DIR")
    server = _server()
    cli.prepare_runtime()
    paths = [pathlib.Path(path) for path in inputs.find_images(pattern)] if pattern else []
    if pattern and not paths:
        raise UsageError(f"--images={pattern}: no image matches; quote a pattern so that the shell leaves it")
    with listen(flags.FLAGS.port) as listener:
        reader, diameter = predict.open_reader(directory)
        say(predict.origin(reader))
        desk = server.Desk(reader, predict.scales_of(reader, diameter), directory)
        token, port = secrets.token_urlsafe(24), listener.getsockname()[1]
        app = server.make_app(desk, token, title=pathlib.PurePath(directory).name)
        # After #, because browsers send this part of a link to no server and write it into no log.
        say(f"open http://127.0.0.1:{port}/#{token} in a browser on this machine; Ctrl-C ends")
        server.serve(desk, app, listener, paths)


def _server() -> Any:
    try:
        return importlib.import_module("hep2jax.view.server")
    except ModuleNotFoundError as error:
        raise UsageError(f"view needs the package {error.name}: pip install 'hep2jax[view]'") from error


def listen(port: int) -> socket.socket:
    """A listening socket on 127.0.0.1; raises UsageError if the port is taken or not allowed."""
    listener = socket.socket()
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen()  # from here on requests wait, and the port is refused to others
    except OSError as error:
        listener.close()
        raise UsageError(
            f"--port={port}: cannot be used ({error.strerror}); --port=0 takes one that is free"
        ) from error
    return listener
