"""From a file, or a list of texts, to answers: `weft learn` and `weft.Classifier`."""
