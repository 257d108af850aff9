"""The coordinator's own store: tables, migrations and connections."""
