"""`task`: requests for code that no web framework calls."""

from __future__ import annotations

import pytest

from pooling import (
    ConfigurationError,
    RequestContext,
    di,
)
from tests.di.parts import App, Recording, Repo, Threaded, User


def test_a_task_is_a_separate_request():
    @di.task
    @di.inject
    def job(number, repo: Repo = di.Inject[Threaded.repo]):
        assert RequestContext.current().name.endswith("job")
        return number, repo.user

    app = Threaded()
    with app.running():
        assert job(1)[1] is job(2)[1]
        assert app.users().borrowed == 0
        assert app.users().stats().acquired == 2


async def test_an_async_task_is_a_separate_request():
    @di.task(App, name="nightly", user="cron")
    @di.inject
    async def job(repo: Repo = di.Inject[App.areport]):
        ctx = RequestContext.current()
        return ctx.name, ctx["user"], repo.user

    async with App().running() as app:
        name, user, value = await job()
        assert (name, user) == ("nightly", "cron")
        assert isinstance(value, User)
        assert app.reports().borrowed == 0


def test_a_failing_task_tells_the_release_hook():
    factory = Recording()

    class Jobs(di.Container):
        users = di.Pool(factory)
        user = di.Pooled(users)

    app = Jobs()
    problem = ValueError("in the job")

    @di.task(app)
    def job():
        app.user()
        raise problem

    with app.running(), pytest.raises(ValueError, match="in the job"):
        job()
    assert factory.ends == [problem]


def test_a_generator_function_is_no_task():
    def rows():
        yield 1

    async def arows():
        yield 1

    for function in (rows, arows):
        with pytest.raises(ConfigurationError, match=f"{function.__name__} is a generator function"):
            di.task(function)


def test_tasks_may_be_methods_of_a_class():
    class Jobs:
        @di.task(Threaded)
        @classmethod
        def of_class(cls):
            return cls, RequestContext.current()

        @di.task(Threaded)
        @staticmethod
        def static():
            return RequestContext.current()

    with Threaded().running() as app:
        kind, ctx = Jobs.of_class()
        assert kind is Jobs
        assert ctx.container is Jobs.static().container is app


def test_a_task_without_a_running_container_says_so():
    @di.task
    def job():
        raise AssertionError

    @di.task(Threaded)
    def other():
        raise AssertionError

    with pytest.raises(ConfigurationError, match="no container is running"):
        job()
    with pytest.raises(ConfigurationError, match="no container Threaded is running"):
        other()
    with Threaded().running(), Threaded().running():
        with pytest.raises(ConfigurationError, match="2 containers are running; say which"):
            job()
