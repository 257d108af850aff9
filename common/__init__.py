"""What the coordinator, the sites and the simulations agree on: plans, keys, records and messages.

`common` imports nothing else of ours, holds no state, and opens neither sockets nor patients' rows.
"""
