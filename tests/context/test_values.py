"""A request's values, its children, and which request is current."""

from __future__ import annotations

import asyncio
import contextvars
import threading

import pytest

from pooling import LazyValue, RequestContext, RequestContextError
from pooling.context import MissingValueError


def test_a_value_is_read_by_its_name():
    ctx = RequestContext("GET /", user="ann")
    assert ctx["user"] == "ann"
    assert ctx.get("user") == "ann"
    assert "user" in ctx
    assert list(ctx) == ["user"]
    assert ctx.name == "GET /"


def test_a_value_of_the_parent_is_seen_until_the_child_hides_it():
    parent = RequestContext(user="ann", tenant="acme")
    child = parent.child(user="bob")
    assert child["user"] == "bob"
    assert child["tenant"] == "acme"
    assert sorted(child) == ["tenant", "user"]
    assert parent["user"] == "ann"
    assert RequestContext("other", parent)["user"] == "ann"


def test_a_value_that_is_none_hides_the_parents():
    child = RequestContext(user="ann").child(user=None)
    assert child["user"] is None
    assert child.get("user", "x") is None
    assert "user" in child


def test_a_missing_value_names_what_was_wanted_and_what_is_there():
    ctx = RequestContext("GET /orders", tenant="acme")
    with pytest.raises(MissingValueError) as caught:
        ctx["identity"]
    assert str(caught.value) == (
        "request 'GET /orders' has no value 'identity'; it has tenant. Give it where the request is opened: "
        "request(identity=...) on the container, or the values of the middleware."
    )
    assert isinstance(caught.value, RequestContextError)
    assert isinstance(caught.value, KeyError)
    assert caught.value.missing == "identity"
    assert ctx.get("identity") is None
    assert "identity" not in ctx


def test_a_required_value_may_not_be_none():
    ctx = RequestContext(identity=None, user="ann")
    assert ctx.require("user") == "ann"
    with pytest.raises(MissingValueError, match="identity=None"):
        ctx.require("identity")


def test_a_value_can_be_added_during_the_request():
    ctx = RequestContext()
    ctx["user"] = "ann"
    assert ctx["user"] == "ann"


def test_a_lazy_value_is_made_once_when_it_is_first_asked_for():
    made = []
    ctx = RequestContext(user=LazyValue(lambda: made.append("ann") or made[-1]), other=1)
    assert "user" in ctx
    assert list(ctx) == ["user", "other"]
    assert ctx["other"] == 1
    assert made == [], "so far it was not needed"
    child = ctx.child()
    assert (child["user"], ctx["user"], ctx.get("user"), ctx.require("user")) == ("ann",) * 4
    assert made == ["ann"]


def test_an_error_of_a_lazy_value_is_raised_for_each_that_asks_and_does_not_grow():
    made = []

    def make():
        made.append(1)
        raise LookupError("no user")

    ctx = RequestContext(user=LazyValue(make))
    lengths = []
    for ask in (ctx.get, ctx.get, ctx.get, ctx.__getitem__):
        with pytest.raises(LookupError, match="no user") as caught:
            ask("user")
        lengths.append(len(caught.traceback))
    assert lengths[0] == lengths[1] == lengths[2]
    assert made == [1]


def test_an_interrupt_while_a_lazy_value_is_made_leaves_it_to_the_next_that_asks():
    outcomes = [KeyboardInterrupt(), "ann"]

    def make():
        if isinstance(outcome := outcomes.pop(0), BaseException):
            raise outcome
        return outcome

    ctx = RequestContext(user=LazyValue(make))
    with pytest.raises(KeyboardInterrupt):
        ctx.get("user")
    assert ctx["user"] == "ann"


def test_threads_that_ask_for_a_lazy_value_at_once_share_one():
    made, begun, go = [], threading.Event(), threading.Event()

    def make():
        made.append(object())
        begun.set()
        go.wait(30)
        return made[-1]

    ctx = RequestContext(user=LazyValue(make))
    seen = []
    threads = [threading.Thread(target=lambda: seen.append(ctx["user"])) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert begun.wait(30)
    go.set()
    for thread in threads:
        thread.join()
    assert seen == made * 8


def test_a_lazy_value_that_needs_itself_is_an_error_and_no_deadlock():
    ctx = RequestContext()
    ctx["user"] = LazyValue(lambda: ctx["user"])
    with pytest.raises(RecursionError):
        ctx.get("user")


def test_the_values_do_not_appear_in_its_text():
    assert "s3cret" not in repr(RequestContext(token="s3cret")) + str(RequestContext(token="s3cret"))


def test_the_current_request_is_the_innermost_one_entered():
    assert RequestContext.current() is None
    with RequestContext("outer") as outer:
        assert RequestContext.current() is outer
        with RequestContext("inner") as inner:
            assert RequestContext.current() is inner
        assert RequestContext.current() is outer
    assert RequestContext.current() is None


async def test_tasks_of_two_requests_each_see_their_own():
    async def serve(name):
        async with RequestContext(name):
            await asyncio.sleep(0)
            return RequestContext.current().name

    assert await asyncio.gather(serve("a"), serve("b")) == ["a", "b"]


async def test_a_task_that_outlives_its_request_still_sees_it_ended():
    go = asyncio.Event()

    async def late():
        await go.wait()
        return RequestContext.current()

    async with RequestContext() as ctx:
        task = asyncio.create_task(late())
    go.set()
    assert await task is ctx
    assert ctx.is_closed


def test_a_request_can_be_made_current_in_another_thread_without_ending_there():
    seen = []
    with RequestContext() as ctx:

        def work():
            assert RequestContext.current() is None
            with ctx.active():
                seen.append(RequestContext.current())
            seen.append(RequestContext.current())

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert not ctx.is_closed
    assert seen == [ctx, None]


def test_a_request_is_entered_once():
    ctx = RequestContext("job")
    with ctx, pytest.raises(RequestContextError, match="entered before"), ctx:
        pass
    with pytest.raises(RequestContextError, match="entered before"):
        ctx.__enter__()


def test_leaving_from_another_context_is_tolerated():
    ctx = RequestContext()
    contextvars.copy_context().run(ctx.__enter__)
    ctx.__exit__(None, None, None)  # its variable was set in a context that is gone
    assert ctx.is_closed


async def test_closing_from_another_task_is_tolerated():
    ctx = RequestContext()
    await asyncio.create_task(ctx.__aenter__())
    await asyncio.create_task(ctx.__aexit__(None, None, None))
    assert ctx.is_closed


def test_leaving_a_block_made_active_in_another_context_is_tolerated():
    block = RequestContext().active()
    contextvars.copy_context().run(block.__enter__)
    block.__exit__(None, None, None)
