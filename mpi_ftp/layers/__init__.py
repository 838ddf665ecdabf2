"""The layer kinds: geometry beside maths, one file per family. Nothing here knows of ranks or messages."""
