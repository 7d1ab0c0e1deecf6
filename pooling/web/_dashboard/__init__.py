"""
The live page, without a protocol: `dashboard.py` beside this package serves it by ASGI and WSGI.

`reading` takes the numbers of all pools, `changes` tells what happened from one reading to the next, `feed` keeps the
latest sample for all who look, `keys` finds the rows that one of them wants, `actions` acts on a pool, and `site`
answers requests.
"""
