"""Plans that ship with the software; docs/examples holds the same files."""
