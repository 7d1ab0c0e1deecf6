"""asyncpg's own pool on a Lakebase, as the app: each connection logs in with a password of the moment."""

import asyncio

import asyncpg  # type: ignore[import-untyped]

from lakebase import lakebase_pg_config


async def main() -> None:
    settings = lakebase_pg_config(driver="asyncpg", connect_timeout=30)  # which covers minting the first password, too
    async with asyncpg.create_pool(**settings, min_size=1, max_size=4) as pool:
        await pool.execute("create table if not exists visits (at timestamptz not null default now())")
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute("insert into visits default values")
        print("visits:", await pool.fetchval("select count(*) from visits"))


if __name__ == "__main__":
    asyncio.run(main())
