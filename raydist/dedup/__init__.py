"""dedup: vectors, and frames of candidate pairs -> copies, groups and keepers.

Reads   `embeddings_<model_key>`, `signatures`, `videos`, `decisions`, and frames of candidate pairs
Writes  `traces`, `duplicates_<model_key>`, `overlaps_<model_key>`, `groups_<model_key>`, `joined_<model_key>`
Again   safe after any crash: pairs that are known are not joined again, none is stored twice. Nothing is ever deleted
"""
