"""READ: the dependency specs a repository already has become a Project.

model.py is the Project as values; discover.py says which files count and why. reading, requirement, requirements,
pyproject, distribution and settings each read one thing; problems tells all that is wrong at once; inputs is the digest
that a lock carries; init shows, guesses, writes and starts projects.
"""
