"""From one request to the process that makes its picture, and back: admission, dispatcher, messages."""
