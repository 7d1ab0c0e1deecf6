"""The operations of a pool that take several steps, each written once for threads and asyncio."""
