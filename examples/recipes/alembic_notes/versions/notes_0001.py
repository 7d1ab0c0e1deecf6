"""The table of notes, and who sees which."""

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.execute(
        """
        create table notes (
            id bigint generated always as identity primary key,
            body text not null unique,
            owner text not null default current_user
        )
        """
    )
    op.execute("alter table notes enable row level security")
    op.execute("create policy own on notes using (owner = current_user)")
    op.execute("grant select, insert on notes to public")


def downgrade() -> None:
    op.execute("drop table notes")
