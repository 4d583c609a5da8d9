from hep2jax.training import environment


def test_a_package_that_only_lies_on_the_path_does_not_end_a_run():
    assert environment.version("no-such-package-anywhere") == "not installed"
    assert environment.version("jax")[0].isdigit()
    assert set(environment.describe()["packages"]) >= {"jax", "hep2jax"}
