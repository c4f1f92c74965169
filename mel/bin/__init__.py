"""The command lines: one file a binary, and the launcher they share."""
