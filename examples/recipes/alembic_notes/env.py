"""
Migrations by the tables' owner, on the direct host.

alembic -c alembic_notes/alembic.ini upgrade head                      # as the role that logs in
alembic -c alembic_notes/alembic.ini -x owner=notes_owner upgrade head # as a role that it is a member of
"""

import sqlalchemy
from alembic import context

from lakebase import LakebasePoolConfig, lakebase_orm_config


def migrate_online() -> None:
    # Migrations are one transaction with a lock, so they never go through the pooler, and wait for no lock for ever.
    config = LakebasePoolConfig.from_env(pooled=False, lock_timeout=10.0, application_name="alembic")
    parts = lakebase_orm_config(config)
    password = parts.pop("password")  # minted when it connects, and in no URL
    engine = sqlalchemy.create_engine(
        sqlalchemy.URL.create(**parts), connect_args={"password": password}, poolclass=sqlalchemy.NullPool
    )
    with engine.connect() as connection:
        context.configure(connection=connection)
        with context.begin_transaction():
            if owner := context.get_x_argument(as_dictionary=True).get("owner"):
                connection.execute(sqlalchemy.text("select set_config('role', :owner, true)"), {"owner": owner})
            # Replicas of an app may migrate at once: the others wait, and find nothing to do.
            connection.execute(sqlalchemy.text("select pg_advisory_xact_lock(hashtext('alembic'))"))
            context.run_migrations()


def migrate_offline() -> None:
    context.configure(dialect_name="postgresql", literal_binds=True)  # `--sql` prints, and connects to nothing
    with context.begin_transaction():
        context.run_migrations()


migrate_offline() if context.is_offline_mode() else migrate_online()
