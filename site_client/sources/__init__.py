"""Read a hospital's own data as its mapping declares it."""
