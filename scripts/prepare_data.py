"""`python -m scripts.prepare_data`: what `hep2jax prepare` does, from a checkout."""

from hep2jax import cli, prepare

if __name__ == "__main__":
    prepare.define_flags()
    cli.run_app(prepare.main)
