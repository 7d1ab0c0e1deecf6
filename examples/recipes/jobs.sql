-- The tables of the recipe for Celery. The id is that of the task: a task that runs twice writes one row.
create table if not exists runs (id uuid primary key, what text not null);
grant select, insert on runs to public;

-- For whom tasks may act. The app's role may not change it, and Postgres looks into it when a task writes.
create table if not exists members (name text primary key);
create table if not exists member_runs (
    id uuid primary key,
    owner text not null default current_setting('app.user') references members,
    what text not null
);
alter table member_runs enable row level security;
drop policy if exists own on member_runs;
create policy own on member_runs using (owner = current_setting('app.user', true));
grant select, insert on member_runs to public;
