"""
The live proof: users' requests under load, on a local Lakebase that goes wrong in every way it can.

`python -m tests.live.proof --minutes 10` runs it for long; the tests run a short form of it.
"""
