"""The privacy audit: does the training code do what its mechanism records say?

A shadow study on generated patients, with the product's own engine, randomness and ledger, watched
from inside. It finds bugs; it cannot prove that there are none.
"""
