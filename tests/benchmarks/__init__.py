"""Speed and size of the pools beside their peers: `python -m tests.benchmarks`."""
