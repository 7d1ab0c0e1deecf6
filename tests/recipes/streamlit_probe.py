"""What a script may do to a connection: `?do=…` says what. Run by Streamlit's server in `test_streamlit.py`."""

import time

import streamlit as st

from lakebase.streamlit import LakebaseConnection, explain_errors

db = st.connection("lakebase", type=LakebaseConnection, max_size=1, timeout=10)

do = st.query_params["do"]
if do == "hold":  # until Streamlit interrupts it in an `st` call
    with db.connection() as conn:
        conn.execute("insert into notes (text) values ('interrupted')")
        while True:
            st.text("holding")
            time.sleep(0.01)  # sleeps: as a script that works
if do == "stop":
    with db.connection() as conn:
        conn.execute("insert into notes (text) values ('stopped')")
        st.stop()
if do == "add":
    with db.connection() as conn:
        conn.execute("insert into notes (text) values ('added')")
with explain_errors():
    if do == "outlive":  # the token is revoked meanwhile
        with db.connection() as conn:
            conn.execute("insert into notes (text) values ('outlived')")
            st.text("holding")
            while not conn.execute("select 1 from notes where text = 'go on'").fetchall():
                time.sleep(0.01)  # sleeps: as a script that works
        st.text("committed")
        db.manager.expire()  # the next one logs in anew
    texts = db.query("select text from notes order by id", ttl=300 if do == "keep" else 0)["text"]
    st.text(f"{db.identity().user} sees {', '.join(texts)}; {db.manager.stats().borrowed} borrowed")
