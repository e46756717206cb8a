"""From plain networks to the project's own, one change at a time."""
