"""
Notes, with the connections of the user who looks: `streamlit run streamlit_app.py`.

The table is in `notes.sql`. The user comes in the headers that Databricks Apps adds.
"""

import streamlit as st

from lakebase.streamlit import LakebaseConnection, explain_errors

db = st.connection("lakebase", type=LakebaseConnection, max_total=50)

st.title("Notes")
text = st.text_input("A note", max_chars=200)
with explain_errors():
    if st.button("Add") and text:
        with db.connection() as conn:
            conn.execute("insert into notes (text) values (%s)", [text])
    st.caption(f"as {db.identity().user}")
    st.dataframe(db.query("select id, owner, text from notes order by id"), hide_index=True)
    roles = db.query("select rolname from pg_roles where pg_has_role(oid, 'member') order by 1", ttl=300)
    st.sidebar.table(roles)
