"""A site that asks for keys in every way there is. Each key is named for its gate, and asked for in one place."""
