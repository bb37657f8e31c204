"""From interaction logs to events: readers, vocabulary, encoding, splits."""
