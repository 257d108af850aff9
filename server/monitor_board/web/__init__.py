"""The board's dashboard: pages, their numbers, login, metrics and the static report."""
