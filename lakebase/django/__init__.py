"""
A database backend for Django that needs no more than an endpoint.

```python
DATABASES = {"default": {"ENGINE": "lakebase.django"}}
```

What is missing comes from the environment and, at the first connection, from the workspace. The settings that Django
has names for win: `HOST`, `PORT`, `NAME`, `USER`, `PASSWORD`. In `OPTIONS` may be the fields of a `LakebasePoolConfig`
that concern a connection, such as `endpoint` or `schema`, beside Django's own options.
"""
