"""Job files, prompt files, media files and command lines that nobody should write, and what must hold for each."""
