"""What the coordinator, the sites and the simulations agree on: plans, keys, records and messages.

`common` imports nothing else of ours, holds no state, and opens neither a socket nor a patient's row.
"""
