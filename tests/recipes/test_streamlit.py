"""Streamlit: `lakebase.streamlit` and its recipe, in sessions of the real server and in Streamlit's own `AppTest`."""

from __future__ import annotations

import functools
import math
import threading
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from lakebase import ConfigurationError, IdentityError, UserIdentity, lakebase_pg_config
from tests.recipes.conftest import RECIPES

st = pytest.importorskip("streamlit", reason="streamlit is in the extra `recipes`")

from streamlit.testing.v1 import AppTest  # noqa: E402

from lakebase.streamlit import LakebaseConnection  # noqa: E402
from tests.recipes.streamlit_client import Session, streamlit_server  # noqa: E402

PROBE = Path(__file__).with_name("streamlit_probe.py")
RELOAD = "Your sign-in has expired. Reload the page; copy first what you have typed."


@pytest.fixture(scope="module")
def servers():
    """Streamlit's server of a script, started when it is first asked for."""
    with ExitStack() as stack:
        yield functools.cache(lambda script: stack.enter_context(streamlit_server(script)))


@pytest.fixture
def app(documented_environment, servers):
    return servers(RECIPES / "streamlit_app.py")


@pytest.fixture
def probe(documented_environment, servers, users):
    """Open a session of the probe: of Ann, unless it says otherwise."""
    address = servers(PROBE)

    def open_session(do, user=users[0], **options):
        return Session(address, options.pop("headers", user.headers), f"do={do}", **options)

    return open_session


def sees(user, borrowed=0):
    return [f"{user.name} sees of {user.name}; {borrowed} borrowed"]


# -- the recipe ------------------------------------------------------------------------


def test_each_user_of_the_app_sees_and_writes_their_own_notes(app, users):
    ann, bob = users
    with Session(app, ann.headers) as anns, Session(app, bob.headers) as bobs:
        anns.run(), bobs.run()
        anns.enter("A note", "second")
        anns.click("Add")
        assert anns.rows() == [[ann.name, f"of {ann.name}"], [ann.name, "second"]]
        assert bobs.run().rows() == [[bob.name, f"of {bob.name}"]]


def test_an_expired_sign_in_asks_for_a_reload_and_keeps_the_session(app, users):
    ann, _ = users
    with Session(app, ann.headers) as session:
        session.run()
        ann.lake.revoke(ann.name)
        ann.lake.drop_connections()
        session.enter("A note", "typed before")
        assert session.click("Add").all("alert") == [RELOAD]
        ann.lake.add_user(ann.name)
        assert session.run().all("alert") == [RELOAD], "the session's headers are those of its handshake"
    # The browser's page reconnects, as after a moment without a network: the same session, and the newer token.
    with Session(app, ann.headers, like=session) as again:
        again.click("Add")
        assert again.all("alert") == []
        assert again.rows() == [[ann.name, f"of {ann.name}"], [ann.name, "typed before"]]


# -- interruptions ---------------------------------------------------------------------


def test_a_script_that_is_interrupted_by_a_rerun_gives_its_connection_back(probe, users):
    with probe("hold") as session:
        session.start()
        session.wait_for_text("holding")
        session.query = "do=see"
        assert session.run().all("text") == sees(users[0])


def test_a_session_that_ends_gives_its_connection_back(probe, users):
    with probe("hold") as session:
        session.start()
        session.wait_for_text("holding")
    with probe("see") as session:  # of at most one connection, for which it waits
        assert session.run().all("text") == sees(users[0])


def test_st_stop_in_a_block_rolls_it_back(probe, users):
    with probe("stop") as session:
        session.run()
        session.query = "do=see"
        assert session.run().all("text") == sees(users[0])


def test_what_runs_outlives_the_token(probe, users, documented_environment):
    ann, _ = users
    with probe("outlive") as session:
        session.start()
        session.wait_for_text("holding")
        documented_environment.revoke(ann.name)
        with psycopg.connect(**lakebase_pg_config(documented_environment.config())) as owner:
            owner.execute("insert into notes (owner, text) values (%s, 'go on')", [ann.name])
        session.finish()
        assert session.all("text") == ["holding", "committed"]
        assert session.all("alert") == [RELOAD]
    documented_environment.add_user(ann.name)
    with probe("see") as session:
        assert "outlived" in session.run().all("text")[0]


# -- what is kept ----------------------------------------------------------------------


def test_a_kept_result_is_of_its_own_token_alone(probe, users):
    ann, bob = users
    lies = {"X-Forwarded-Email": ann.name}
    for user in (ann, bob):
        with probe("keep", user) as session:
            assert session.run().all("text") == sees(user)
    with probe("add") as session:
        session.run()
        session.query = "do=keep"
        assert session.run().all("text") == sees(ann), "it is kept"
        session.query = "do=see"
        assert "added" in session.run().all("text")[0]
    for forged, said in (("made-up", RELOAD), (bob.token, "the database refuses your login")):
        with probe("keep", headers={**lies, "X-Forwarded-Access-Token": forged}) as session:
            assert session.run().all("text") == []
            (alert,) = session.all("alert")
            assert said in alert
    with probe("keep", headers=lies) as session:
        assert session.run().all("text") == []
        assert session.all("alert") == [RELOAD]
    ann.lake.add_user(ann.name)
    with probe("keep") as session:
        assert "added" in session.run().all("text")[0], "another token of hers asks the database"


def test_headers_that_name_two_users_are_refused(probe, users):
    ann, bob = users
    with probe("see", headers=[*ann.headers.items(), *bob.headers.items()]) as session:
        assert session.run().all("alert") == [RELOAD]


# -- in the process --------------------------------------------------------------------


@pytest.fixture
def test_of(documented_environment, users, monkeypatch):
    """A script in `AppTest`, whose sessions have no headers: the test says who the user is."""
    ann, _ = users
    monkeypatch.setattr(LakebaseConnection, "identity", lambda self: UserIdentity(ann.name, ann.token))
    yield AppTest.from_function
    st.cache_resource.clear()


def test_reruns_share_one_manager_until_the_cache_is_cleared(test_of):
    def script():
        import streamlit as st

        from lakebase.streamlit import LakebaseConnection

        db = st.connection("lakebase", type=LakebaseConnection, max_total=5, max_size=2)
        with db.connection() as conn:
            (row,) = conn.execute("select pg_backend_pid()").fetchone()
        st.session_state.seen = [*st.session_state.get("seen", []), (db.manager, row)]

    app = test_of(script).run().run()
    (manager, first), (same, second) = app.session_state.seen
    assert manager is same
    assert first == second
    assert manager.stats().max_total == 5
    st.cache_resource.clear()
    assert manager.stats().connections == 0
    *_, (other, _) = app.run().session_state.seen
    assert other is not manager


def test_settings_come_from_the_secrets_and_are_checked(documented_environment, tmp_path, monkeypatch):
    (tmp_path / ".streamlit").mkdir()
    (tmp_path / ".streamlit" / "secrets.toml").write_text(
        '[connections.notes]\ntype = "lakebase.streamlit.LakebaseConnection"\nmax_size = 2\nmax_total = 7\n'
    )
    monkeypatch.chdir(tmp_path)
    st.secrets._reset()
    db = LakebaseConnection("notes", max_total=9)
    assert db.manager.stats().max_total == 9
    assert db.pool(UserIdentity("ann@corp.example")).max_size == 2
    first = db.manager
    db.reset()
    assert db.manager is not first
    with pytest.raises(ConfigurationError, match="max_totl"):
        LakebaseConnection("notes", max_totl=9)
    st.secrets._reset()


@pytest.fixture
def db(documented_environment):
    db = LakebaseConnection("lakebase", max_size=1)
    yield db
    db.close()


def test_a_query_reads_only(db, users, monkeypatch):
    ann, _ = users
    monkeypatch.setattr(db, "identity", lambda: UserIdentity(ann.name, ann.token))
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        db.query("insert into notes (text) values ('x') returning id")
    for ttl in (0, 5, timedelta(seconds=5), math.inf):
        found = db.query("select text, %s::int as n from notes", [7], ttl=ttl)
        assert found.to_dict("records") == [{"text": f"of {ann.name}", "n": 7}]
    with db.connection() as conn:
        conn.execute("insert into notes (text) values ('the next borrower writes')")
    for ttl in (-1, math.nan):
        with pytest.raises(ConfigurationError, match="ttl"):
            db.query("select 1", ttl=ttl)


@pytest.mark.filterwarnings("ignore::streamlit.errors.StreamlitAPIWarning")
def test_a_thread_without_a_session_is_told_to_bring_the_identity(db, users):
    ann, _ = users
    with pytest.raises(IdentityError, match="identity="):
        db.identity()
    seen = []

    def work(identity):
        with db.connection(identity=identity) as conn:
            seen.extend(conn.execute("select current_user").fetchone())

    thread = threading.Thread(target=work, args=[UserIdentity(ann.name, ann.token)])
    thread.start()
    thread.join()
    assert seen == [ann.name]
