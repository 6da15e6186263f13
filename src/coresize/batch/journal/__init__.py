"""What a batch has done, in a file: written, read, merged and exported."""
