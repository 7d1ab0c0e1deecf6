-- Run once, as the owner of the database. Postgres compares the owner of a note with the role that has logged in.
create table notes (
    id bigint generated always as identity primary key,
    owner text not null default current_user,
    text text not null check (length(text) between 1 and 200)
);
alter table notes enable row level security;
create policy own_notes on notes using (owner = current_user) with check (owner = current_user);
grant select, insert on notes to public;
