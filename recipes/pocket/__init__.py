"""How `pocket` is made: text, examples, shards, training, release. Not part of the installed package."""
