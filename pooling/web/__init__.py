"""
A request context for each web request; one file per kind of server or framework.

`asgi` and `wsgi` need nothing installed; `starlette`, `fastapi`, `litestar`, `flask` and `django` need the framework
they are named after, and are imported by their own name: `from pooling.web.asgi import RequestContextMiddleware`.
"""
