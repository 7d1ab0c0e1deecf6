"""
The parts of `lakebase doctor`: what a finding is, the checks, their order, and how findings are printed.

Each check is a function of the facts that were found so far, in a file of its subject. `examination` has them in order.
"""
