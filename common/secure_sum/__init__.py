"""Add vectors of many sites so that only the sum is ever seen: additive shares and check tags."""
