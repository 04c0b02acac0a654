"""The words of the OCI specifications, as values. Pure: no files, no network.

Imports only mlbox.codec and mlbox.errors.
"""
