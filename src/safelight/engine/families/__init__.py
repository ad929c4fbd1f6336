"""What differs between model families; one folder each."""
