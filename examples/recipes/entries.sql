-- The table of the recipes for SQLAlchemy and Litestar: every user sees and writes their own entries, and no others'.
create table if not exists entries (
    id bigint generated always as identity primary key,
    body text not null unique,
    owner text not null default current_user
);
alter table entries enable row level security;
drop policy if exists own_entries on entries;
create policy own_entries on entries using (owner = current_user) with check (owner = current_user);
grant select, insert on entries to public;
