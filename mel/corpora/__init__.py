"""The outside world to nouns: archives, DaMuEL, Mewsli-9, the alias table."""
