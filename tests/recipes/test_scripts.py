def test_the_script_counts_each_of_its_runs(run_recipe):
    assert [run_recipe("script.py").stdout for _ in range(2)] == ["visits: 1\n", "visits: 2\n"]
