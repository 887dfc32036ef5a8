"""What is handed out: the source that is read, the file, its card and what it says of itself."""
