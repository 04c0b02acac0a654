"""What a lock says in the words of other tools. Pure: values in, text out."""
