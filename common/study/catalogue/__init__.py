"""The feature catalogue: shipped definitions of common features, and how a plan takes them."""
