-- The table of the recipes for web apps: every user sees and writes their own notes, and no others'.
create table if not exists notes (
    id bigint generated always as identity primary key,
    owner text not null default current_user,
    text text not null check (length(text) between 1 and 200)
);
alter table notes enable row level security;
drop policy if exists own_notes on notes;
create policy own_notes on notes using (owner = current_user) with check (owner = current_user);
grant select, insert on notes to public;
