"""eFuses: what they hold, plans of burns, and where they are stored."""
