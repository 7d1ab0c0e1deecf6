import pytest

from lakebase import create_lakebase_pool

SCHEMA = """
    create table notes (text text, owner text not null default current_user);
    create table journal (line text, by text not null default current_user);
    alter table notes enable row level security;
    create policy own on notes using (owner = current_user);
    grant select, insert on notes to public;
    grant insert on journal to public;
"""


@pytest.fixture
def owner(lakebase_local):
    with create_lakebase_pool(lakebase_local.config(), max_size=1) as pool, pool.connection() as conn:
        conn.execute(SCHEMA)
        conn.commit()
        yield conn
        conn.execute("drop table notes; drop table journal")


def test_views_that_were_wired_before_serve_each_user_on_a_connection_of_theirs(load_recipe, lakebase_local, owner):
    recipe = load_recipe("adopting_di.py")
    client = recipe.app.test_client()

    def headers(name):
        return {"X-Forwarded-Email": name, "X-Forwarded-Access-Token": lakebase_local.add_user(name)}

    ann, bob = headers("ann.adopting@corp.example"), headers("bob.adopting@corp.example")
    assert client.post("/notes", data="tea\nmilk", headers=ann).status_code == 201
    assert client.get("/notes", headers=ann).json == ["milk", "tea"]
    assert client.get("/notes", headers=bob).json == []
    assert client.get("/notes").status_code == 401
    lines = owner.execute("select line, by from journal order by line").fetchall()
    assert lines == [("added milk", "ann.adopting@corp.example"), ("added tea", "ann.adopting@corp.example")]
    owner.commit()
    assert recipe.container.pools().stats().borrowed == 0
    recipe.container.stop()
    recipe.container.unwire()
