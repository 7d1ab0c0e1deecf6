"""The WSGI middleware, without a framework."""

from __future__ import annotations

import http.client
import io
import threading
import wsgiref.util

import pytest

from pooling import RequestContext
from pooling.web import wsgi
from pooling.web.outcome import ResponseError
from tests.web.servers import get, nothing_is_out, waitress_server


def test_a_streamed_body_keeps_its_value_until_the_server_closes_it(container):
    def app(environ, start_response):
        start_response("200 OK", [])
        thing = container.thing()

        def body():
            for _ in range(3):
                assert container.thing() is thing  # the request is current while a part is made
                yield f"{thing.is_out} {RequestContext.current()['path']}\n".encode()

        return body()

    served = wsgi.RequestContextMiddleware(app, container, values=lambda environ: {"path": environ["PATH_INFO"]})
    with waitress_server(served) as url:
        assert get(url, "/x").text == "True /x\n" * 3
        nothing_is_out(container)
        assert container.factory().ends == [None]


def test_between_the_parts_no_request_is_current(container):
    def app(environ, start_response):
        yield b"one"
        assert RequestContext.current() is not None
        yield b"two"

    body = wsgi.RequestContextMiddleware(app, container)({}, None)
    parts = iter(body)
    assert next(parts) == b"one"
    assert RequestContext.current() is None
    assert next(parts) == b"two"
    body.close()


def test_two_bodies_by_turns_in_one_thread_keep_their_own_values(container):
    def app(environ, start_response):
        thing = container.thing()
        for _ in range(2):
            assert container.thing() is thing
            yield str(id(thing)).encode()

    served = wsgi.RequestContextMiddleware(app, container)
    one, two = served({}, None), served({}, None)
    first = (next(one), next(two), next(one), next(two))
    assert first[0] == first[2] != first[1] == first[3]
    one.close()
    two.close()
    nothing_is_out(container)


def test_parts_made_in_several_threads_have_the_same_value(container):
    def app(environ, start_response):
        while True:
            yield container.thing()

    body = wsgi.RequestContextMiddleware(app, container)({}, None)
    seen = []
    for _ in range(3):
        thread = threading.Thread(target=lambda: seen.append(next(body)))
        thread.start()
        thread.join(20)
    body.close()
    assert len(set(seen)) == 1
    nothing_is_out(container)


def test_an_app_that_raises_gives_back_and_tells_the_release_hook(container):
    def app(environ, start_response):
        container.thing()
        raise LookupError("in the app")

    with pytest.raises(LookupError):
        wsgi.RequestContextMiddleware(app, container)({}, None)
    assert [type(end) for end in container.factory().ends] == [LookupError]


def test_a_body_that_raises_gives_back_and_tells_the_release_hook(container):
    def app(environ, start_response):
        container.thing()
        yield b"one"
        raise LookupError("in the body")

    body = wsgi.RequestContextMiddleware(app, container)({}, None)
    with pytest.raises(LookupError):
        list(body)
    body.close()
    assert [type(end) for end in container.factory().ends] == [LookupError]


def test_the_bodys_own_close_runs_first_and_its_error_gives_back_all_the_same(container):
    class Body:
        def __iter__(self):
            return iter([b"x"])

        def close(self):
            assert container.thing().is_out
            raise OSError("close")

    body = wsgi.RequestContextMiddleware(lambda environ, start: Body(), container)({}, None)
    assert next(body) == b"x"
    with pytest.raises(OSError, match="close"):
        body.close()
    body.close()
    assert container.things().borrowed == 0


def test_a_client_gone_in_the_middle_of_a_stream_gives_back(container):
    def app(environ, start_response):
        start_response("200 OK", [])
        container.thing()
        while True:
            yield b"x" * 65536

    with waitress_server(wsgi.RequestContextMiddleware(app, container)) as url:
        host, port = url.removeprefix("http://").split(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        connection.request("GET", "/")
        response = connection.getresponse()
        assert response.read(10)
        response.close()
        connection.close()
        nothing_is_out(container)
        assert [type(end) for end in container.factory().ends] == [ResponseError]


def streams(container):
    def app(environ, start_response):
        start_response("200 OK", [])
        container.thing()
        return iter([b"one", b"two"])

    return wsgi.RequestContextMiddleware(app, container)


def test_a_body_closed_after_its_first_part_ends_with_an_error_and_one_read_to_the_end_without(container):
    served = streams(container)
    for read in (1, 2):
        body = served({}, lambda *_: None)
        assert [next(body) for _ in range(read)] == [b"one", b"two"][:read]
        body.close()
    assert list(served({}, lambda *_: None)) == [b"one", b"two"]
    cut, unfinished, whole = container.factory().ends
    assert type(cut) is type(unfinished) is ResponseError, "its second part may not have been its last"
    assert "not sent to its end" in str(cut)
    assert whole is None


def test_a_body_read_as_far_as_was_told_is_whole_and_its_end_is_reached(container):
    log = []

    def app(environ, start_response):
        start_response("200 OK", [("Content-Length", "6")])
        thing = container.thing()
        yield b"one"
        yield b"two"
        log.append(thing.is_out)
        if environ.get("fails"):
            raise LookupError("after its last part")

    served = wsgi.RequestContextMiddleware(app, container)
    body = served({}, lambda *_: None)
    assert [next(body), next(body)] == [b"one", b"two"]
    assert (log, container.factory().ends) == ([True], [None])
    body.close()
    assert list(body) == []

    for closes_at_once in (True, False):
        body = served({"fails": True}, lambda *_: None)
        assert [next(body), next(body)] == [b"one", b"two"]
        if not closes_at_once:
            with pytest.raises(LookupError):
                next(body)
            body.close()
        else:
            with pytest.raises(LookupError):
                body.close()
        assert isinstance(container.factory().ends[-1], LookupError)

    body = served({}, lambda *_: None)
    next(body)
    body.close()
    assert type(container.factory().ends[-1]) is ResponseError
    assert container.things().borrowed == 0


def test_a_body_of_more_than_was_told_is_passed_on_as_it_is(container):
    def app(environ, start_response):
        start_response("200 OK", [("Content-Length", "1")])
        container.thing()
        return iter([b"one", b"two", b"three"])

    assert list(wsgi.RequestContextMiddleware(app, container)({}, lambda *_: None)) == [b"one", b"two", b"three"]
    assert container.factory().ends == [None]


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_a_body_that_no_client_wants_may_be_cut(container, status):
    def app(environ, start_response):
        start_response(status, [])
        container.thing()
        return iter([b"one", b"two"])

    body = wsgi.RequestContextMiddleware(app, container)({}, lambda *_: None)
    next(body)
    body.close()
    assert container.factory().ends == [None]


def test_a_server_can_tell_the_length_of_a_body_of_one_part(container):
    def app(environ, start_response):
        start_response("200 OK", [])
        return [b"all"]

    with waitress_server(wsgi.RequestContextMiddleware(app, container)) as url:
        response = get(url)
    assert (response.text, response.headers["content-length"]) == ("all", "3")


def test_an_unread_body_is_no_error_nor_is_that_of_a_head(container):
    served = streams(container)
    served({}, lambda *_: None).close()
    body = served({"REQUEST_METHOD": "HEAD"}, lambda *_: None)
    next(body)
    body.close()
    assert container.factory().ends == [None, None]


def test_many_requests_at_once_each_have_their_own_value(container):
    def app(environ, start_response):
        start_response("200 OK", [])
        thing = container.thing()
        yield str(thing.is_out and container.thing() is thing).encode()

    results = []
    with waitress_server(wsgi.RequestContextMiddleware(app, container)) as url:
        threads = [threading.Thread(target=lambda: results.append(get(url).text)) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        nothing_is_out(container)
    assert results == ["True"] * 12


def test_values_may_have_any_name():
    def app(environ, start_response):
        ctx = RequestContext.current()
        assert (ctx["name"], ctx["parent"]) == ("ann", "bob")
        start_response("200 OK", [])
        return []

    wrapped = wsgi.RequestContextMiddleware(app, values=lambda environ: {"name": "ann", "parent": "bob"})
    body = wrapped({"REQUEST_METHOD": "GET"}, lambda status, headers: None)
    assert list(body) == []


def test_a_server_recognizes_a_file_that_it_can_send_by_itself(container, tmp_path):
    (tmp_path / "file").write_bytes(b"a file")
    closed = []

    class Opened(io.FileIO):
        def close(self):
            closed.append(container.things().borrowed)
            super().close()

    def app(environ, start_response):
        container.thing()
        start_response("200 OK", [("Content-Length", "6")])
        return environ["wsgi.file_wrapper"](Opened(tmp_path / "file"))

    wrapped = wsgi.RequestContextMiddleware(app, container)
    body = wrapped({"wsgi.file_wrapper": wsgiref.util.FileWrapper}, lambda *_: None)
    assert type(body) is wsgiref.util.FileWrapper
    assert container.things().borrowed == 0
    body.close()
    with waitress_server(wrapped) as url:
        assert get(url).content == b"a file"
    assert set(closed) == {0}
    assert container.factory().ends == [None, None]
