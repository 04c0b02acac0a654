"""The command line: arguments, one library call, render."""
