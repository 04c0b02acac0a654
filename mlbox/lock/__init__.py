"""PIN: a Project and a Target become a Lock that names every file by its hash.

model.py is the lock as values, file.py its TOML form; python/ resolves wheels, debian/ resolves .debs.
"""
