"""The board's own store: tables, migrations and connections."""
