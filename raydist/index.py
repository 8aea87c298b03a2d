"""index: the vector index behind search: built, refreshed, and its recall measured."""
