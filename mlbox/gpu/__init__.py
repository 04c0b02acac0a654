"""GPUs: what a host has, what a container gets of it, whether an environment fits it, and who holds it."""
