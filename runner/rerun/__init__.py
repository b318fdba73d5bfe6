"""Making results again in this process: decoding saved latents, and repeating an item to compare it with the old one."""
