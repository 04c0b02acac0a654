"""Images, and all they were made from, in one file: written, checked, loaded where there is no network."""
