"""A small convolutional network that learns handwritten digits."""
