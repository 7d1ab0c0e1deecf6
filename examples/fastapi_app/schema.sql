-- Every user sees and writes their own notes: Postgres compares the owner with the role that has logged in.
create table notes (
    id bigint generated always as identity primary key,
    owner text not null default current_user,
    text text not null check (length(text) between 1 and 200)
);
alter table notes enable row level security;
create policy own_notes on notes using (owner = current_user) with check (owner = current_user);
grant select, insert on notes to public;

-- Who did what, as the database saw it. Users add to it and cannot read it.
create table visits (
    role text not null default current_user,
    request text not null,
    at timestamptz not null default now()
);
grant insert on visits to public;
