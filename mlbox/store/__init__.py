"""KEEP: content-addressed blobs, artifacts, pieces, layers, images; names in one SQLite file.

Publishing is always: write under tmp/, then one rename. Readers never wait.
"""
