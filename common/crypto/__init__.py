"""Keys, signatures, seals and certificates, each bound to its one use."""
