"""The kernel's edge: one typed function per system call. Returns the value or raises OSError; standard library only."""
