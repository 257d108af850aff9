"""What sites, relay and monitor boards tell each other: reports, rosters, notices."""
