"""
A database backend for Django that needs no more than an endpoint.

```python
DATABASES = {"default": {"ENGINE": "lakebase.django"}}
```

What is missing comes from the environment and, at the first connection, from the workspace. The settings that Django
has names for win: `HOST`, `PORT`, `NAME`, `USER`, `PASSWORD`. In `OPTIONS` may be the fields of a `LakebasePoolConfig`
that concern a connection, such as `endpoint` or `schema`, beside Django's own options.

With `"OPTIONS": {"per_user": True}` the queries of a request run on connections of the request's user, which
`pooling.web.django.RequestContextMiddleware` finds with `POOLING = {"VALUES": "lakebase.request_identity"}`. Then the
limits of pools, such as `max_size` and `max_total`, may be among the options, too.
"""
