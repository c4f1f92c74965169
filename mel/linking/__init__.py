"""The bundle for downstream use, and the linker that reads it."""
