"""A linker for others to ask: the HTTP service, and the page where a person does."""
