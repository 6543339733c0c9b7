"""Redis Streams: logs, queues, the bus and leases. The only importer of redis.

Everything above speaks to the broker through this package, so what Redis does (ids, scripts,
retries, what a refused write means) is decided here once. `embedded.py` starts the broker of
a single machine; everything else does not know whose broker it talks to.
"""
