"""`python -m scripts.prepare_data` does the same as `hep2jax prepare`, from a checkout of the repository."""

from hep2jax import cli, prepare

if __name__ == "__main__":
    prepare.define_flags()
    cli.run_app(prepare.main)
