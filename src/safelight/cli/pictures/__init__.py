"""Pictures from the command line: made, inspected, made again, by the file."""
