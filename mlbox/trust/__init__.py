"""TRUST: what an image is made of, who says so, and whom this machine believes."""
