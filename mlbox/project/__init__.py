"""READ: the dependency specs a repository already has become a Project.

model.py is the Project as values; discover.py says which files count and why.
"""
