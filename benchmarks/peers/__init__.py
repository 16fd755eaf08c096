"""pybroker beside what a user would pick instead, each a real server: `python -m pybroker.benchmarks.peers`.

`catalog` says who the peers are, `servers` starts them on loopback, and a `driver` for each sends and receives through
the peer's own Python client, in a process of its own that `load` is and `generator` talks to. `rounds` takes turns,
`report` makes the tables.
"""
