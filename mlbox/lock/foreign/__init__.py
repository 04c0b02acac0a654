"""PIN by what is pinned already: locks of other tools, read as truth and never resolved again."""
