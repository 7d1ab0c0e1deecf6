"""A script with one connection, run as a program."""


def test_the_script_counts_each_of_its_runs(run_recipe):
    # Another recipe may have counted in the same table.
    first, second = (int(run_recipe("script.py").stdout.removeprefix("visits: ")) for _ in range(2))
    assert second == first + 1
