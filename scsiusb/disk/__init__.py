"""A logical unit as blocks and bytes: reads, writes, streams, many devices, asyncio."""
