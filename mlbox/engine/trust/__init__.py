"""What is said about images, by whom, and whether this host believes it."""
